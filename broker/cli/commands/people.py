"""`person`, `vendor`: looking, suspending, resuming. Suspending a vendor waits for every credential's end."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from broker.cli import waiting
from broker.cli.api import Json, segment
from broker.cli.command import Cli, verb
from broker.cli.commands.access import Reason
from broker.cli.commands.nouns import Id, Limit, Noun, group, mount_list, mount_show, print_list
from broker.cli.faults import Code
from broker.cli.output import Column
from broker.cli.words import seconds_of

PERSON = Noun(
    "person",
    "/people",
    listed=(
        Column("id", "id"),
        Column("name", "name"),
        Column("vendor", "vendor"),
        Column("status", "status"),
        Column("roles", "roles"),
    ),
    shown=(
        Column("id", "id"),
        Column("name", "name"),
        Column("e-mail", "email"),
        Column("vendor", "vendor"),
        Column("status", "status"),
        Column("roles", "roles"),
        Column("issuer", "issuer"),
        Column("since", "created_at", when=True),
    ),
    none="Nobody.",
)
VENDOR = Noun(
    "vendor",
    "/vendors",
    listed=(Column("id", "id"), Column("name", "name"), Column("status", "status")),
    shown=(
        Column("id", "id"),
        Column("name", "name"),
        Column("status", "status"),
        Column("since", "created_at", when=True),
    ),
    none="No vendor.",
)
Wait = Annotated[str, typer.Option(help="How long to wait until backends confirm the end of credentials.")]


def mount(app: typer.Typer) -> None:
    """Add these groups."""
    people = group(app, "person", "Humans of the organisation and of vendors.")
    verb(people, "list", of="person")(list_people)
    _mount_status(people, PERSON)
    vendors = group(app, "vendor", "Third parties.")
    mount_list(vendors, VENDOR)
    _mount_status(vendors, VENDOR)


def list_people(
    cli: Cli,
    vendor: Annotated[str | None, typer.Option(help="Only this vendor's.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, active, suspended.")] = None,
    limit: Limit = 100,
) -> None:
    """List the people you may see."""
    print_list(cli, PERSON, limit, vendor=vendor, status=status)


def _mount_status(app: typer.Typer, noun: Noun) -> None:
    mount_show(app, noun)

    def suspend(cli: Cli, id_: Id, reason: Reason, wait: Wait = "60s") -> int:
        answer = cli.api.post(f"{noun.path}/{segment(id_)}/suspend", {"reason": reason})
        cli.out.say(f"{noun.name.capitalize()} {id_} suspended: new use is refused from now on.")
        return _tell_endings(cli, answer, seconds_of(wait))

    def resume(cli: Cli, id_: Id, reason: Reason) -> None:
        answer = cli.api.post(f"{noun.path}/{segment(id_)}/resume", {"reason": reason})
        cli.out.done(f"{noun.name.capitalize()} {id_} is active again; no ended lease comes back.", answer)

    suspend.__doc__ = f"Suspend a {noun.name}: no new use, every session out, every live lease ended."
    resume.__doc__ = f"Let a {noun.name} in again."
    verb(app, "suspend", of=noun.name)(suspend)
    verb(app, "resume", of=noun.name)(resume)


def _tell_endings(cli: Cli, answer: Json, seconds: float) -> int:
    """Wait for the leases the answer names: 7 if some are unconfirmed, 9 if some failed."""
    end = time.monotonic() + seconds
    leases: list[Json] = []
    for lease_id in answer.get("leases") or []:
        lease = waiting.until_ended(cli.api, str(lease_id), seconds=max(0.0, end - time.monotonic()))
        cli.out.say(waiting.outcome(lease))
        leases.append(lease)
    codes = {waiting.code_of(lease) for lease in leases}
    confirmed = sum(waiting.code_of(lease) is Code.DONE for lease in leases)
    cli.out.done(f"{confirmed} of {len(leases)} leases confirmed ended.", {**answer, "leases": leases})
    return next((code for code in (Code.PARTLY, Code.WAITING) if code in codes), Code.DONE)
