"""`proposal`, `audit`: acts that wait for a second admin, and what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli.api import segment
from broker.cli.command import Cli, verb
from broker.cli.commands.nouns import Id, Limit, Noun, Reason, group, mount_show, print_list
from broker.cli.output import Column

PROPOSAL = Noun(
    "proposal",
    "/proposals",
    listed=(
        Column("id", "id"),
        Column("state", "state"),
        Column("act", "act"),
        Column("about", "subject"),
        Column("proposed by", "proposed_by"),
        Column("lapses", "lapses_at", when=True),
    ),
    shown=(
        Column("id", "id"),
        Column("state", "state"),
        Column("act", "act"),
        Column("about", "subject"),
        Column("details", "details"),
        Column("proposed by", "proposed_by"),
        Column("proposed", "created_at", when=True),
        Column("lapses", "lapses_at", when=True),
        Column("decided by", "decided_by"),
        Column("reason", "reason"),
    ),
    none="Nothing waits for a second admin.",
)
EVENT = Noun(
    "event",
    "/events",
    listed=(
        Column("at", "at", when=True),
        Column("kind", "kind"),
        Column("actor", "actor"),
        Column("subject", "subject"),
        Column("id", "id"),
    ),
    shown=(),
    none="No event.",
)


def mount(app: typer.Typer) -> None:
    """Add these groups."""
    proposals = group(app, "proposal", "Acts that wait for a second admin.")
    verb(proposals, "list", of="proposal")(list_proposals)
    mount_show(proposals, PROPOSAL)
    verb(proposals, "approve", of="proposal")(approve)
    verb(proposals, "refuse", of="proposal")(refuse)
    audit = group(app, "audit", "What happened.")
    verb(audit, "list", of="audit")(list_events)


def list_proposals(
    cli: Cli,
    state: Annotated[str | None, typer.Option(help="pending, approved, refused or lapsed.")] = None,
    limit: Limit = 100,
) -> None:
    """List proposals."""
    print_list(cli, PROPOSAL, limit, state=state)


def approve(cli: Cli, id_: Id) -> None:
    """Approve another admin's proposal; it is carried out at once."""
    cli.out.done(f"Proposal {id_} approved and carried out.", cli.api.post(f"/proposals/{segment(id_)}/approve"))


def refuse(cli: Cli, id_: Id, reason: Reason) -> None:
    """Refuse a proposal."""
    cli.out.done(f"Proposal {id_} refused.", cli.api.post(f"/proposals/{segment(id_)}/refuse", {"reason": reason}))


def list_events(
    cli: Cli,
    kind: Annotated[str | None, typer.Option(help="Such as lease.issued.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who did it, such as person:pe_….")] = None,
    subject: Annotated[str | None, typer.Option(help="What it was done to.")] = None,
    limit: Limit = 100,
) -> None:
    """List events, newest first: your own, or all for admins and auditors."""
    print_list(cli, EVENT, limit, kind=kind, actor=actor, subject=subject)
