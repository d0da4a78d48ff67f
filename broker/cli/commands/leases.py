"""`lease`: what was issued, and ending it."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli import waiting
from broker.cli.api import segment
from broker.cli.command import Cli, verb
from broker.cli.commands import exporting
from broker.cli.commands.nouns import (
    LeaseId,
    LeaseState,
    Limit,
    Noun,
    OnlyDataset,
    OnlyPerson,
    Reason,
    group,
    mount_show,
    print_list,
)
from broker.cli.output import columns
from broker.cli.words import seconds_of

LEASE = Noun(
    "lease",
    "/leases",
    listed=columns("id!, state, kind, dataset!, slice, expires=expires_at@"),
    shown=columns(
        "id, state, kind, handle, dataset, slice, action, holder=holder_name, issued=created_at@, "
        "expires=expires_at@, ended=ended_at@, cause=end_cause, confirmed by=confirmed_by, how it ends=ending.how, "
        "worst exposure=ending.worst_case#, exposed until=exposed_until@, attempts, next attempt=next_attempt_at@"
    ),
    none="No leases. Next: guestkey connect DATASET",
)


def mount(app: typer.Typer) -> None:
    """Add this group."""
    leases = group(app, "lease", "Records of credentials, without the secrets.")
    verb(leases, "list", of="lease")(list_leases)
    mount_show(leases, LEASE)
    verb(leases, "renew", of="lease")(renew)
    verb(leases, "revoke", of="lease")(revoke)
    exporting.mount_leases(leases)


def list_leases(
    cli: Cli,
    state: LeaseState = None,
    dataset: OnlyDataset = None,
    person: OnlyPerson = None,
    limit: Limit = 100,
) -> None:
    """List leases."""
    print_list(cli, LEASE, limit, state=state, dataset=dataset, person=person)


def renew(
    cli: Cli,
    id_: LeaseId,
    lifetime: Annotated[str | None, typer.Option("--for", help="How long from now, such as 15m.")] = None,
) -> None:
    """Extend a credential, if every condition still holds; otherwise it ends as planned."""
    body = {"lifetime": seconds_of(lifetime) if lifetime is not None else None}
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
