"""`dataset change`, `grant new`, `person confirm`, `person refuse`: changes that one person proposes or decides."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli import completing
from broker.cli.api import Json, segment
from broker.cli.command import Cli, verb
from broker.cli.commands.nouns import Dataset, Reason
from broker.cli.faults import Code, Fault

PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id.", autocompletion=completing.PEOPLE)]


def mount_datasets(app: typer.Typer) -> None:
    """Add `dataset change`."""
    verb(app, "change", of="dataset")(change_dataset)


def mount_grants(app: typer.Typer) -> None:
    """Add `grant new`."""
    verb(app, "new", of="grant")(new_grant)


def mount_people(app: typer.Typer) -> None:
    """Add `person confirm` and `person refuse`."""
    verb(app, "confirm", of="person")(confirm_person)
    verb(app, "refuse", of="person")(refuse_person)


def waits(cli: Cli, answer: Json, what: str) -> bool:
    """Say that an act waits for a second person, if it does: the API then answers with a proposal."""
    if "act" not in answer or "lapses_at" not in answer:
        return False
    proposal = answer["id"]
    cli.out.done(
        f"{what} waits for the dataset's owner or another admin. They run: guestkey proposal approve {proposal}", answer
    )
    return True


def change_dataset(
    cli: Cli,
    dataset: Dataset,
    title: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    description: Annotated[str | None, typer.Option(help="What is in it.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="NAME:VALUE; all that it is to have, the option once for each.")
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Take every label away.")] = False,
    owner: Annotated[
        str | None, typer.Option(help="Id of the person who decides about it.", autocompletion=completing.PEOPLE)
    ] = None,
    kept_until: Annotated[str | None, typer.Option(help="Such as 2030-12-31T23:59:59Z.")] = None,
    kept_forever: Annotated[bool, typer.Option("--kept-forever", help="Without end.")] = False,
) -> None:
    """Change a dataset. Owner, labels and a later end wait for its owner or a second admin."""
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
        raise Fault(Code.USAGE, "Nothing is to be changed.", next_step="guestkey dataset change --help")
    changed = cli.api.patch(f"/datasets/{segment(dataset)}", body)
    if not waits(cli, changed, "The change"):
        cli.out.done(f"The dataset {dataset} is changed.", changed)


def new_grant(
    cli: Cli,
    dataset: Dataset,
    role: Annotated[str, typer.Option(help="Such as annotator.", autocompletion=completing.ROLES)],
    until: Annotated[str, typer.Option(help="A day like 2030-12-31, or a time like 2030-12-31T18:00Z.")],
    purpose: Annotated[str, typer.Option(help="What for; the holder is shown it.")],
    team: Annotated[str | None, typer.Option(help="The team that is to hold it: its id or name.")] = None,
    person: Annotated[
        str | None, typer.Option(help="The person who is to hold it, by id.", autocompletion=completing.PEOPLE)
    ] = None,
    slice_: Annotated[
        str | None, typer.Option("--slice", help="Only this part of it.", autocompletion=completing.SLICES)
    ] = None,
) -> None:
    """Give a grant that nobody asked for, to a team or person of a vendor. For who decides about the dataset."""
    if bool(team) == bool(person):
        raise Fault(Code.USAGE, "Name a team or a person, one of the two.", next_step="guestkey grant new --help")
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
    cli.out.done(f"{made['holder_name']} holds the role {role} on {dataset}: grant {made['id']}.", made)


def confirm_person(cli: Cli, person: PersonId) -> None:
    """Confirm that somebody who joined is who the invitation was meant for. For another admin than who invited."""
    confirmed = cli.api.post(f"/people/{segment(person)}/confirm")
    cli.out.done(f"{confirmed['name'] or person} is confirmed.", confirmed)


def refuse_person(cli: Cli, person: PersonId, reason: Reason) -> None:
    """Turn away somebody who joined and is not who the invitation was meant for. For admins and the vendor's lead."""
    refused = cli.api.post(f"/people/{segment(person)}/refuse", {"reason": reason})
    cli.out.done(f"{refused['name'] or person} is turned away; a new invitation lets them try again.", refused)
