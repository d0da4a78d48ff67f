"""`lease`: what was issued, and ending it."""

from __future__ import annotations

from typing import Annotated

import typer

from guestkey.cli import waiting
from guestkey.cli.api import segment
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.commands.nouns import (
    LeaseId,
    Reason,
)
from guestkey.cli.words import maybe_seconds_of, seconds_of


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is special about leases."""
    leases = groups["lease"]
    verb(leases, "renew", of="lease")(renew)
    verb(leases, "revoke", of="lease")(revoke)


def renew(
    cli: Cli,
    id_: LeaseId,
    lifetime: Annotated[str | None, typer.Option("--for", help="How long from now, such as 15m.")] = None,
) -> None:
    """Extend a credential, if every condition still holds; otherwise it ends as planned."""
    body = {"lifetime": maybe_seconds_of(lifetime)}
    lease = cli.api.post(f"/leases/{segment(id_)}/renew", body)
    cli.out.done(f"Lease {id_} now ends {lease['expires_at']}.", lease)


def revoke(
    cli: Cli,
    id_: LeaseId,
    reason: Reason = "no longer needed",
    wait: Annotated[str, typer.Option(help="How long to wait for the backend to confirm.")] = "30s",
) -> int:
    """End a lease now and wait until its backend confirms. Exit code 7: not confirmed yet, 9: failed and retried."""
    cli.api.post(f"/leases/{segment(id_)}/revoke", {"reason": reason})
    lease = waiting.until_ended(cli.api, cli.out, id_, seconds=seconds_of(wait))
    cli.out.done(waiting.outcome(lease), lease)
    return waiting.code_of(lease)
