"""`dataset change`, `grant new`: changes that one person proposes or decides."""

from __future__ import annotations

from typing import Annotated

import typer

from guestkey.cli import completing
from guestkey.cli.api import Json, segment
from guestkey.cli.command import Cli, verb
from guestkey.cli.commands.nouns import Dataset
from guestkey.cli.faults import Code, Fault

PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id.", autocompletion=completing.PEOPLE)]


def mount_datasets(app: typer.Typer) -> None:
    """Add `dataset change`."""
    verb(app, "change", of="dataset")(change_dataset)


def mount_grants(app: typer.Typer) -> None:
    """Add `grant new`."""
    verb(app, "new", of="grant")(new_grant)


def waits(cli: Cli, answer: Json, what: str) -> bool:
    """Say that an act waits for a second person, if it does: the API then answers with a proposal."""
    if "act" not in answer or "lapses_at" not in answer:
        return False
    proposal = answer["id"]
    cli.out.done(
        f"{what} is waiting for the dataset's owner or another admin. They run: guestkey proposal approve {proposal}",
        answer,
    )
    return True


def change_dataset(
    cli: Cli,
    dataset: Dataset,
    title: Annotated[str | None, typer.Option(help="The title.")] = None,
    description: Annotated[str | None, typer.Option(help="The description.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="NAME:VALUE; replaces all labels. Repeat the option for each label.")
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Remove all labels.")] = False,
    owner: Annotated[
        str | None, typer.Option(help="Id of the person who decides about it.", autocompletion=completing.PEOPLE)
    ] = None,
    kept_until: Annotated[str | None, typer.Option(help="Such as 2030-12-31T23:59:59Z.")] = None,
    kept_forever: Annotated[bool, typer.Option("--kept-forever", help="Keep it without end.")] = False,
) -> None:
    """Change a dataset. Owner, labels and a longer retention need its owner or a second admin."""
    given = {
        "title": title,
        "description": description,
        "owner": owner,
        "retention_until": kept_until,
    }
    body: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if label or no_labels:
        body["labels"] = [] if no_labels else label
    if kept_forever:
        body["retention_until"] = None
    if not body:
        raise Fault(Code.USAGE, "No change was given.", next_step="guestkey dataset change --help")
    changed = cli.api.patch(f"/datasets/{segment(dataset)}", body)
    if not waits(cli, changed, "The change"):
        cli.out.done(f"The dataset {dataset} was changed.", changed)


def new_grant(
    cli: Cli,
    dataset: Dataset,
    role: Annotated[str, typer.Option(help="Such as annotator.", autocompletion=completing.ROLES)],
    until: Annotated[str, typer.Option(help="A day like 2030-12-31, or a time like 2030-12-31T18:00Z.")],
    purpose: Annotated[str, typer.Option(help="The purpose; the holder sees it.")],
    team: Annotated[str | None, typer.Option(help="The team that gets the grant: id or name.")] = None,
    person: Annotated[
        str | None, typer.Option(help="The person who gets the grant, by id.", autocompletion=completing.PEOPLE)
    ] = None,
    slice_: Annotated[
        str | None, typer.Option("--slice", help="Only this slice.", autocompletion=completing.SLICES)
    ] = None,
) -> None:
    """Give a grant without a request, to a team or person of a vendor. For people who decide about the dataset."""
    if bool(team) == bool(person):
        raise Fault(Code.USAGE, "Name either a team or a person.", next_step="guestkey grant new --help")
    body = {
        "dataset": dataset,
        "role": role,
        "until": until,
        "purpose": purpose,
        "team": team,
        "person": person,
        "slice": slice_,
    }
    made = cli.api.post("/grants", body)
    cli.out.done(f"{made['holder_name']} now has the role {role} on {dataset}: grant {made['id']}.", made)
