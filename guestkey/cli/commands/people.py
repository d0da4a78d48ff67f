"""`person`, `vendor`: looking, inviting from a file, suspending, resuming."""

from __future__ import annotations

from typing import Annotated

import typer

from guestkey.cli import completing
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.commands import bulk
from guestkey.cli.commands.suspending import mount_suspending
from guestkey.cli.nouns import NOUNS


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is special about people and vendors."""
    people = groups["person"]
    verb(people, "import", of="person")(import_people)
    mount_suspending(people, NOUNS["person"])
    mount_suspending(groups["vendor"], NOUNS["vendor"])


def import_people(
    cli: Cli,
    file: bulk.File,
    dry_run: bulk.DryRun = False,
    keep_going: bulk.KeepGoing = False,
    vendor: Annotated[
        str | None,
        typer.Option(help="The vendor's id; default for a lead: their own vendor.", autocompletion=completing.VENDORS),
    ] = None,
    source: Annotated[str | None, typer.Option(help="The sign-in source's id, if the vendor has several.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="New links for people who have not used theirs; the old links stop working.")
    ] = False,
) -> int:
    """Invite people from a CSV file: name,email,team. Each link is printed only once.

    Exit code 3: some lines were refused; without --keep-going no line was processed.
    """
    query = {"vendor": vendor, "source": source, "again": again or None}
    return bulk.run(cli, file, "/people/import", query, dry_run=dry_run, keep_going=keep_going)
