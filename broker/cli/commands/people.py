"""`person`, `vendor`: looking, inviting from a file, suspending, resuming."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli import completing
from broker.cli.command import Cli, verb
from broker.cli.commands import bulk, changing, exporting
from broker.cli.commands.nouns import Limit, Noun, OnlyVendor, PersonStatus, group, mount_list, mount_show, print_list
from broker.cli.commands.suspending import mount_suspending
from broker.cli.output import columns

PERSON = Noun(
    "person",
    "/people",
    listed=columns("id!, name, vendor!, status, roles"),
    shown=columns("id, name, e-mail=email, vendor, status, roles, issuer, since=created_at@"),
    none="Nobody.",
)
VENDOR = Noun(
    "vendor",
    "/vendors",
    listed=columns("id!, name, status"),
    shown=columns("id, name, status, since=created_at@"),
    none="No vendors yet.",
)


def mount(app: typer.Typer) -> None:
    """Add these groups."""
    people = group(app, "person", "People of the organisation and of vendors.")
    verb(people, "list", of="person")(list_people)
    verb(people, "import", of="person")(import_people)
    changing.mount_people(people)
    _mount_status(people, PERSON)
    exporting.mount_people(people)
    vendors = group(app, "vendor", "Third parties.")
    mount_list(vendors, VENDOR)
    _mount_status(vendors, VENDOR)


def list_people(
    cli: Cli,
    vendor: OnlyVendor = None,
    status: PersonStatus = None,
    limit: Limit = 100,
) -> None:
    """List the people you can see."""
    print_list(cli, PERSON, limit, vendor=vendor, status=status)


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


def _mount_status(app: typer.Typer, noun: Noun) -> None:
    mount_show(app, noun)
    mount_suspending(app, noun)
