"""`proposal`, `audit`: acts that wait for a second admin, and what happened."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from broker.cli import completing
from broker.cli.api import segment
from broker.cli.command import Cli, verb
from broker.cli.commands import log
from broker.cli.commands.nouns import Limit, Noun, Reason, group, mount_show, print_list
from broker.cli.output import columns
from broker.cli.saving import Output, save

PROPOSAL = Noun(
    "proposal",
    "/proposals",
    listed=columns("id!, state, act, about=subject!, proposed by=proposed_by!, lapses=lapses_at@"),
    shown=columns(
        "id, state, act, about=subject, details, proposed by=proposed_by, proposed=created_at@, lapses=lapses_at@, "
        "decided by=decided_by, reason"
    ),
    none="No open proposals.",
)
EVENT = Noun(
    "event",
    "/events",
    listed=columns("at@, kind, what happened=sentence, id!"),
    shown=columns("id, number, at@, what happened=sentence, kind, actor, subject, details, personal, leaf"),
    none="No events.",
)


State = Annotated[
    str | None,
    typer.Option(
        help="pending, approved, refused or lapsed.",
        autocompletion=completing.words("pending", "approved", "refused", "lapsed"),
    ),
]
ProposalId = Annotated[str, typer.Argument(metavar="ID", help="Its id.", autocompletion=completing.PROPOSALS)]
_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


class Form(StrEnum):
    """How events are written out."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    PROOFS = "proofs"


def mount(app: typer.Typer) -> None:
    """Add these groups."""
    proposals = group(app, "proposal", "Changes that need a second person: an admin or an owner.")
    verb(proposals, "list", of="proposal")(list_proposals)
    mount_show(proposals, PROPOSAL)
    verb(proposals, "approve", of="proposal")(approve)
    verb(proposals, "refuse", of="proposal")(refuse)
    audit = group(app, "audit", "What happened.")
    verb(audit, "list", of="audit")(list_events)
    mount_show(audit, EVENT, of="audit")
    verb(audit, "export", of="audit")(export)
    log.mount(audit)


def list_proposals(
    cli: Cli,
    state: State = None,
    limit: Limit = 100,
) -> None:
    """List proposals."""
    print_list(cli, PROPOSAL, limit, state=state)


def approve(cli: Cli, id_: ProposalId) -> None:
    """Approve another person's proposal; it is carried out at once."""
    cli.out.done(f"Proposal {id_} approved and carried out.", cli.api.post(f"/proposals/{segment(id_)}/approve"))


def refuse(cli: Cli, id_: ProposalId, reason: Reason) -> None:
    """Refuse a proposal."""
    cli.out.done(f"Proposal {id_} refused.", cli.api.post(f"/proposals/{segment(id_)}/refuse", {"reason": reason}))


Kind = Annotated[str | None, typer.Option(help="Such as lease.issued.")]
Actor = Annotated[str | None, typer.Option(help="Who did it: an id, an e-mail or a whole name.")]
Subject = Annotated[str | None, typer.Option(help="What was changed: its id.")]
About = Annotated[
    str | None,
    typer.Option(help="About this: any id, a name at a backend (gk_…), a dataset, an e-mail or a whole name."),
]
Vendor = Annotated[
    str | None,
    typer.Option(
        help="Events of this vendor's people and services: its id or whole name.",
        autocompletion=completing.VENDORS,
    ),
]
Since = Annotated[datetime | None, typer.Option(help="Not before this, UTC.", formats=_MOMENTS)]
Until = Annotated[datetime | None, typer.Option(help="Before this, UTC.", formats=_MOMENTS)]


def list_events(
    cli: Cli,
    kind: Kind = None,
    actor: Actor = None,
    subject: Subject = None,
    about: About = None,
    vendor: Vendor = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
) -> None:
    """List events, newest first: your own, or all for admins and auditors."""
    asked = {"kind": kind, "actor": actor, "subject": subject, "about": about, "vendor": vendor}
    print_list(cli, EVENT, limit, **asked, since=_utc(since), until=_utc(until))


def export(
    cli: Cli,
    output: Output = None,
    form: Annotated[
        Form,
        typer.Option("--format", help="`proofs`: for `audit verify`."),
    ] = Form.JSONL,
    kind: Kind = None,
    actor: Actor = None,
    subject: Subject = None,
    about: About = None,
    vendor: Vendor = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Export every event that matches the filter, oldest first. For admins and auditors."""
    asked = {"kind": kind, "actor": actor, "subject": subject, "about": about, "vendor": vendor}
    query = {"format": form.value, **asked, "since": _utc(since), "until": _utc(until)}
    save(cli, "/events/export", output, **query)


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.replace(tzinfo=UTC).isoformat()
