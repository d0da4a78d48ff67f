"""`person export`, `grant export`, `lease export`: whole lists as files. What happened is `audit export`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from broker.cli import completing
from broker.cli.command import Cli, verb
from broker.cli.commands.nouns import LeaseState, OnlyDataset, OnlyPerson, OnlyVendor, PersonStatus
from broker.cli.saving import Output, save


class Form(StrEnum):
    """How a list is written out."""

    CSV = "csv"
    JSONL = "jsonl"


FormOption = Annotated[Form, typer.Option("--format", help="A table, or one JSON document a line.")]
State = Annotated[
    str | None, typer.Option(help="current or ended.", autocompletion=completing.words("current", "ended"))
]


def mount_people(app: typer.Typer) -> None:
    """Add `person export`."""
    verb(app, "export", of="person")(export_people)


def mount_grants(app: typer.Typer) -> None:
    """Add `grant export`."""
    verb(app, "export", of="grant")(export_grants)


def mount_leases(app: typer.Typer) -> None:
    """Add `lease export`."""
    verb(app, "export", of="lease")(export_leases)


def export_people(
    cli: Cli,
    output: Output = None,
    form: FormOption = Form.CSV,
    vendor: OnlyVendor = None,
    status: PersonStatus = None,
) -> None:
    """Export all people you can see, with roles and teams."""
    save(cli, "/people/export", output, format=form.value, vendor=vendor, status=status)


def export_grants(
    cli: Cli,
    output: Output = None,
    form: FormOption = Form.CSV,
    person: OnlyPerson = None,
    dataset: OnlyDataset = None,
    state: State = None,
) -> None:
    """Export every grant you can see."""
    save(cli, "/grants/export", output, format=form.value, person=person, dataset=dataset, state=state)


def export_leases(
    cli: Cli,
    output: Output = None,
    form: FormOption = Form.CSV,
    person: OnlyPerson = None,
    dataset: OnlyDataset = None,
    state: LeaseState = None,
) -> None:
    """Export every lease you can see, without secrets."""
    save(cli, "/leases/export", output, format=form.value, person=person, dataset=dataset, state=state)
