"""`connect`, `run`, `get`, `why`: a fresh credential for one dataset, or why there is none."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from broker.cli import children, completing, reasons, waiting
from broker.cli.api import Json, segment
from broker.cli.command import Cli, verb
from broker.cli.commands.nouns import Dataset
from broker.cli.faults import Code, Fault
from broker.cli.output import Column, mappings
from broker.cli.problems import filled
from broker.cli.signals import interrupting, shielded
from broker.cli.words import clock, duration, moment, safe, seconds_of

Slice = Annotated[str | None, typer.Option("--slice", help="Which part of it.", autocompletion=completing.SLICES)]
Lifetime = Annotated[str | None, typer.Option("--for", help="How long, such as 15m; the rule may shorten it.")]
Kind = Annotated[str, typer.Option("--kind", help="Kind of credential.", autocompletion=completing.KINDS)]

_CONFIRM_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    dataset: str
    slice: str | None
    kind: str
    lifetime: str | None
    action: str = "read"

    def body(self) -> Json:
        """As the API takes it."""
        return {
            "dataset": self.dataset,
            "action": self.action,
            "slice": self.slice,
            "kind": self.kind,
            "lifetime": seconds_of(self.lifetime) if self.lifetime is not None else None,
        }


def mount(app: typer.Typer) -> None:
    """Add these commands."""
    verb(app, "connect", own_code=Code.CHILD_NOT_RUN)(connect)
    verb(app, "run", own_code=Code.CHILD_NOT_RUN)(run)
    verb(app, "get")(get)
    verb(app, "why")(why)


def connect(cli: Cli, dataset: Dataset, slice_: Slice = None, lifetime: Lifetime = None) -> int:
    """Open psql on a dataset with a fresh lease, and end the lease when psql ends."""
    psql = children.find_psql()
    with borrowed(cli, Wanted(dataset, slice_, "postgres", lifetime)) as credential:
        cli.out.remark(f"You can read {safe(credential.get('relation'))}.")
        return children.run([psql], children.environment(credential))


def run(
    cli: Cli,
    dataset: Dataset,
    command: Annotated[list[str], typer.Argument(help="After --: the program and its arguments.")],
    slice_: Slice = None,
    kind: Kind = "postgres",
    lifetime: Lifetime = None,
) -> int:
    """Run a program with a fresh lease in its environment (PG…, GUESTKEY_…), and end the lease when it ends."""
    with borrowed(cli, Wanted(dataset, slice_, kind, lifetime)) as credential:
        return children.run(command, children.environment(credential))


def get(
    cli: Cli,
    dataset: Dataset,
    kind: Kind,
    slice_: Slice = None,
    lifetime: Lifetime = None,
    action: Annotated[str, typer.Option(help="read or write.")] = "read",
    field: Annotated[str | None, typer.Option(help="Print this one value only.")] = None,
) -> None:
    """Hand a credential over, once."""
    handed = _issue(cli, Wanted(dataset, slice_, kind, lifetime, action))
    try:
        _hand_over(cli, handed, field)
    except (Fault, OSError):
        # Nobody got it, so nobody shall have it.
        _end(cli, handed["lease"]["id"])
        raise
    cli.out.remark(_ending(handed["lease"]))
    cli.out.remark(f"End it sooner: guestkey lease revoke {handed['lease']['id']}")


def _hand_over(cli: Cli, handed: Json, field: str | None) -> None:
    credential = handed["credential"]
    if field is not None:
        if field not in credential:
            known = ", ".join(sorted(credential))
            raise Fault(Code.USAGE, f"There is no value called {field!r}.", next_step=f"Use one of: {known}.")
        cli.out.value(str(credential[field]))
    elif cli.as_json:
        cli.out.document(handed)
    else:
        cli.out.facts([Column(name, name) for name in credential], credential)


def why(
    cli: Cli,
    dataset: Dataset,
    action: Annotated[str, typer.Option(help="read or write.")] = "read",
    slice_: Slice = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Kind of credential.", autocompletion=completing.KINDS)
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(help="Somebody else's id; for owners, admins and auditors.", autocompletion=completing.PEOPLE),
    ] = None,
) -> int:
    """Whether you could get a credential now, and if not, every reason. Issues nothing; exit code 3 means no."""
    query = {"action": action, "slice": slice_, "kind": kind, "person": person}
    decision = cli.api.get(f"/datasets/{segment(dataset)}/why", **query)
    allowed = decision.get("allowed") is True
    if cli.as_json:
        cli.out.document(decision)
    else:
        cli.out.facts(_DECISION, decision)
        found = mappings(decision.get("reasons"))
        cli.out.reasons(found, about="" if person else dataset)
        wanted = "guestkey connect {dataset}" if allowed else reasons.next_command(found)
        if person is None and (said := filled([wanted], "why", {"dataset": dataset})):
            cli.out.say(f"Next: {said}")
    return Code.DONE if allowed else Code.DENIED


_DECISION = (
    Column("allowed", "allowed"),
    Column("slice", "slice"),
    Column("longest lifetime", "max_lifetime", seconds=True),
    Column("rule", "rules"),
    Column("policy revision", "policy_revision"),
    Column("passed", "passed"),
)


@contextmanager
def borrowed(cli: Cli, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """A credential for as long as the block runs; its lease is ended whatever happens in it."""
    with interrupting():
        handed = _issue(cli, wanted)
        try:
            cli.out.remark(_ending(handed["lease"]))
            yield handed["credential"]
        finally:
            _end(cli, handed["lease"]["id"])


def _issue(cli: Cli, wanted: Wanted) -> Json:
    key = str(uuid.uuid4())
    try:
        handed = cli.api.post("/leases", wanted.body(), key=key)
    except Fault as fault:
        if fault.code is Code.BACKEND and not fault.problem:
            _end_lost(cli, wanted, key)
        raise
    except KeyboardInterrupt:
        _end_lost(cli, wanted, key)
        raise
    if not isinstance(handed.get("credential"), dict):
        raise Fault(Code.FAULT, "This credential was handed over before.", next_step="Ask again; a new one is made.")
    return handed


def _end_lost(cli: Cli, wanted: Wanted, key: str) -> None:
    """The answer was lost on its way: what it held nobody can use, so it must not live on."""
    try:
        with shielded():
            cli.api.confirm = None
            lease = cli.api.post("/leases", wanted.body(), key=key)["lease"]
    except (Fault, KeyError):
        cli.out.say("Whether a credential was made is not known; unused, it ends by itself. See: guestkey lease list")
        return
    _end(cli, lease["id"])


def _end(cli: Cli, lease_id: str) -> None:
    try:
        with shielded():
            cli.api.post(f"/leases/{segment(lease_id)}/revoke", {"reason": "no longer needed"})
        lease = waiting.until_ended(cli.api, cli.out, lease_id, seconds=_CONFIRM_SECONDS)
    except Fault as fault:
        if fault.code == Code.SIGN_IN:
            # Suspending somebody ends their leases, signing out alone does not: which it was is not told here.
            cli.out.say(
                "You were signed out meanwhile. The lease ends when its time is up, if it has not ended already."
            )
            cli.out.say("Next: guestkey login")
            return
        cli.out.say(
            f"The lease could not be ended now: {fault.what.rstrip('.')}. It ends by itself when its time is up."
        )
        cli.out.say(f"Next: guestkey lease revoke {lease_id}")
        return
    cli.out.say(waiting.outcome(lease))


def _ending(lease: Json) -> str:
    ends = moment(lease.get("expires_at"))
    worst = (lease.get("ending") or {}).get("worst_case")
    exposure = f" Should the broker be gone by then, it ends {duration(worst)} later." if worst else ""
    return (f"Ends {clock(ends, datetime.now(UTC))}." if ends else "") + exposure
