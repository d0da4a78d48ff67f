"""Acts that need two admins: one proposes, another approves, and only then, in that transaction, they happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from broker import audit
from broker.caller import Caller
from broker.database import Transaction
from broker.errors import Conflict, Forbidden, Invalid, NotFound
from broker.models import PROPOSAL_ACTS, Proposal, new_id

LIFETIME = timedelta(days=1)
# What an act does once approved: (transaction, details, proposer's id, approver's id, now).
Performer = Callable[[Transaction, Mapping[str, Any], str, str, datetime], None]


def propose(
    tx: Transaction,
    act: str,
    subject: str,
    details: Mapping[str, Any],
    caller: Caller,
    now: datetime,
    *,
    lifetime: timedelta = LIFETIME,
) -> Proposal:
    """Put an act before a second admin.

    Raises:
        Forbidden: the caller is no admin.
    """
    if act not in PROPOSAL_ACTS:
        raise Invalid("There is no such act.", field="/act")
    if not caller.is_admin:
        raise Forbidden("Only an admin proposes this.")
    proposal = Proposal(
        id=new_id("pr"),
        act=act,
        subject=subject,
        details=dict(details),
        state="pending",
        proposed_by=caller.id,
        created_at=now,
        lapses_at=now + lifetime,
    )
    tx.add(proposal)
    tx.flush()
    audit.record(
        tx, "proposal.made", actor=caller.subject, subject=proposal.id, now=now, details={"act": act, "on": subject}
    )
    return proposal


def approve(
    tx: Transaction, proposal_id: str, caller: Caller, now: datetime, performers: Mapping[str, Performer]
) -> Proposal:
    """Approve an act and carry it out.

    Raises:
        NotFound: there is no such proposal.
        Conflict: it was decided or has lapsed.
        Forbidden: the caller is no admin, or proposed it.
    """
    proposal = _pending(tx, proposal_id, caller, now)
    if proposal.proposed_by == caller.id:
        raise Forbidden("You proposed this: another admin must approve it.", code="self_decision")
    proposal.state, proposal.decided_by, proposal.decided_at = "approved", caller.id, now
    tx.flush()
    audit.record(
        tx,
        "proposal.approved",
        actor=caller.subject,
        subject=proposal.id,
        now=now,
        details={"act": proposal.act, "on": proposal.subject, "proposed_by": proposal.proposed_by},
    )
    performers[proposal.act](tx, proposal.details, proposal.proposed_by, caller.id, now)
    return proposal


def refuse(tx: Transaction, proposal_id: str, caller: Caller, reason: str, now: datetime) -> Proposal:
    """Refuse an act, or withdraw one's own.

    Raises:
        NotFound, Conflict, Forbidden: as for `approve`, except that the proposer may.
    """
    proposal = _pending(tx, proposal_id, caller, now)
    proposal.state, proposal.decided_by, proposal.decided_at = "refused", caller.id, now
    proposal.reason = reason
    audit.record(
        tx,
        "proposal.refused",
        actor=caller.subject,
        subject=proposal.id,
        now=now,
        details={"act": proposal.act},
        personal={"reason": reason},
    )
    return proposal


def _pending(tx: Transaction, proposal_id: str, caller: Caller, now: datetime) -> Proposal:
    if not caller.is_admin:
        raise Forbidden("Only an admin decides this.")
    proposal = tx.scalars(select(Proposal).where(Proposal.id == proposal_id).with_for_update()).one_or_none()
    if proposal is None:
        raise NotFound("There is no such proposal.")
    if proposal.state != "pending" or proposal.lapses_at <= now:
        state = "lapsed" if proposal.state == "pending" else proposal.state
        raise Conflict(f"This proposal is {state}; it can no longer be decided.", advice="Propose it again.")
    return proposal
