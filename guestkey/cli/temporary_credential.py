"""Getting a credential and giving it back: one lease, ended whatever interrupts the command that asked for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from broker.kinds.client import Credential, moment
from guestkey.cli import authorities, keypairs, waiting
from guestkey.cli.api import segment
from guestkey.cli.command import Cli
from guestkey.cli.faults import Code, Fault
from guestkey.cli.signals import interrupting, shielded
from guestkey.cli.wanted import Wanted
from guestkey.cli.words import clock, duration

_CONFIRM_SECONDS = 10.0


@contextmanager
def borrowed(cli: Cli, wanted: Wanted) -> Iterator[Credential]:
    """A credential for as long as the block runs; its lease is ended whatever happens in it."""
    with interrupting():
        handed = issue(cli, wanted)
        try:
            cli.out.remark(ending(handed.lease))
            yield handed
        finally:
            end(cli, handed.lease_id)


def issue(cli: Cli, wanted: Wanted) -> Credential:
    """Ask for a credential; with a key made here, where its kind needs one and none was brought.

    Raises:
        Fault: it was refused, or nobody can tell; what may have been made is ended.
    """
    pair = keypairs.made(wanted.kind) if wanted.public_key is None else None
    asked = replace(wanted, public_key=pair.public) if pair else wanted
    key = str(uuid.uuid4())
    try:
        answer = cli.api.post("/leases", asked.body(), key=key)
    except Fault as fault:
        if fault.code is Code.BACKEND and not fault.problem:
            _end_lost(cli, asked, key)
        raise
    except KeyboardInterrupt:
        _end_lost(cli, asked, key)
        raise
    values = answer.get("credential")
    if not isinstance(values, dict):
        raise Fault(Code.FAULT, "This credential was already delivered.", next_step="Run it again to get a new one.")
    if pair:
        values["private_key"] = pair.private
    lease = answer["lease"]
    kind = str(lease.get("kind") or wanted.kind)
    try:
        authorities.settled(kind, values)
    except Fault:
        end(cli, str(lease["id"]))
        raise
    return Credential(wanted.dataset, kind, lease, values, answer)


def end(cli: Cli, lease_id: str) -> None:
    """Ask for the end of a lease, wait a little for its backend to confirm, and say how far it is."""
    try:
        with shielded():
            cli.api.post(f"/leases/{segment(lease_id)}/revoke", {"reason": "no longer needed"})
        lease = waiting.until_ended(cli.api, cli.out, lease_id, seconds=_CONFIRM_SECONDS)
    except Fault as fault:
        if fault.code == Code.SIGN_IN:
            # Suspending somebody ends their leases, signing out alone does not: which it was is not told here.
            cli.out.say("You were signed out meanwhile. The lease ends when it expires, if it has not ended already.")
            cli.out.say("Next: guestkey login")
            return
        cli.out.say(f"The lease could not be ended now: {fault.what.rstrip('.')}. It ends when it expires.")
        cli.out.say(f"Next: guestkey lease revoke {lease_id}")
        return
    cli.out.say(waiting.outcome(lease))


def ending(lease: Mapping[str, Any]) -> str:
    """When a lease ends, and how much later at worst."""
    ends = moment(lease.get("expires_at"))
    worst = (lease.get("ending") or {}).get("worst_case")
    exposure = f" If Guestkey is down then, it ends {duration(worst)} later at worst." if worst else ""
    return (f"Ends {clock(ends, datetime.now(UTC))}." if ends else "") + exposure


def _end_lost(cli: Cli, wanted: Wanted, key: str) -> None:
    """The answer was lost on its way: what it held nobody can use, so it must not live on."""
    try:
        with shielded():
            cli.api.confirm = None
            lease = cli.api.post("/leases", wanted.body(), key=key)["lease"]
    except (Fault, KeyError):
        cli.out.say(
            "It is not known whether a credential was issued; if unused, it ends by itself. See: guestkey lease list"
        )
        return
    end(cli, lease["id"])
