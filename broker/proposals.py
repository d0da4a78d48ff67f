"""Acts that need two admins: one proposes, another approves, and only then, in that transaction, they happen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, or_, select

from broker import audit, canonical
from broker.caller import Caller
from broker.database import Transaction
from broker.errors import Conflict, FactorNeeded, Forbidden, Invalid, NotFound
from broker.models import PROPOSAL_ACTS, Person, Proposal, RoleHeld, is_id, new_id

LIFETIME = timedelta(days=1)
# Agreeing is worth as much as the act itself, so it asks for the factor anew; in seconds.
APPROVER_FACTOR_AGE = 900
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

    Args:
        subject: the id of what it is done to; nobody proposes or approves acts about themselves.
        details: what the performer needs, as JSON; secrets in it are wrapped.

    Raises:
        Forbidden: the caller is no admin.
        Conflict: the act is about the caller.
    """
    if act not in PROPOSAL_ACTS:
        raise Invalid("There is no such act.", field="/act")
    if not caller.is_admin:
        raise Forbidden("Only an admin proposes this.")
    _check_not_about(caller, subject)
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
    _record(tx, "proposal.made", proposal, caller, now)
    return proposal


def approve(
    tx: Transaction, proposal_id: str, caller: Caller, now: datetime, performers: Mapping[str, Performer]
) -> Proposal:
    """Approve an act and carry it out.

    Raises:
        NotFound: there is no such proposal.
        Conflict: it was decided or has lapsed, or is about the caller.
        Forbidden: the caller is no admin or proposed it, or whoever did is no admin any more.
        FactorNeeded: the caller's second factor is not fresh.
    """
    proposal = _pending(tx, proposal_id, caller, now)
    age = None if caller.factor_at is None else (now - caller.factor_at).total_seconds()
    if age is None or age > APPROVER_FACTOR_AGE:
        raise FactorNeeded(
            "Agreeing needs a fresh second factor.", max_age=APPROVER_FACTOR_AGE, enrolled=caller.factor_enrolled
        )
    _check_not_about(caller, proposal.subject)
    if proposal.proposed_by == caller.id:
        raise Forbidden("You proposed this: another admin must approve it.", code="self_decision")
    _check_still_admins(tx, proposal.proposed_by, caller.id, now)
    proposal.state, proposal.decided_by, proposal.decided_at = "approved", caller.id, now
    tx.flush()
    _record(tx, "proposal.approved", proposal, caller, now)
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
    tx.flush()
    _record(tx, "proposal.refused", proposal, caller, now)
    return proposal


def seen_by(caller: Caller) -> Select[Proposal]:
    """All of them, for admins and auditors.

    Raises:
        Forbidden: the caller is neither.
    """
    if not (caller.is_admin or caller.is_auditor):
        raise Forbidden("Only admins and auditors see this.", advice="Ask an admin of the organisation.")
    return select(Proposal)


def find(tx: Transaction, proposal_id: str, caller: Caller) -> Proposal:
    """One of them, for looking.

    Raises:
        NotFound: there is none of that id.
        Forbidden: see `seen_by`.
    """
    query = seen_by(caller).where(Proposal.id == proposal_id)
    proposal = tx.scalars(query).one_or_none() if is_id(proposal_id) else None
    if proposal is None:
        raise NotFound("There is no such proposal.")
    return proposal


def _pending(tx: Transaction, proposal_id: str, caller: Caller, now: datetime) -> Proposal:
    if not caller.is_admin:
        raise Forbidden("Only an admin decides this.")
    query = select(Proposal).where(Proposal.id == proposal_id).with_for_update()
    proposal = tx.scalars(query).one_or_none() if is_id(proposal_id) else None
    if proposal is None:
        raise NotFound("There is no such proposal.")
    if proposal.state != "pending" or proposal.lapses_at <= now:
        state = "lapsed" if proposal.state == "pending" else proposal.state
        raise Conflict(f"This proposal is {state}; it can no longer be decided.", advice="Propose it again.")
    return proposal


def _check_not_about(caller: Caller, subject: str) -> None:
    if subject == caller.id:
        raise Conflict("This is about you.", advice="Two other admins must do it.", code="self_decision")


def _check_still_admins(tx: Transaction, proposer_id: str, approver_id: str, now: datetime) -> None:
    # Locked, so that neither can lose the role or be suspended between this look and the act's commit.
    query = (
        select(RoleHeld.person_id)
        .join(Person, Person.id == RoleHeld.person_id)
        .where(
            RoleHeld.person_id.in_((proposer_id, approver_id)),
            RoleHeld.role == "admin",
            RoleHeld.ended_at.is_(None),
            or_(RoleHeld.until.is_(None), RoleHeld.until > now),
            Person.status == "active",
            Person.vendor_id.is_(None),
        )
        .with_for_update(read=True)
    )
    if len(set(tx.scalars(query))) != 2:
        raise Forbidden(
            "Whoever proposed this is no longer an active admin.", advice="Refuse it, and propose it again if wanted."
        )


def _record(tx: Transaction, kind: str, proposal: Proposal, caller: Caller, now: datetime) -> None:
    details: Any = proposal.details
    # The digest fixes what was agreed to, without putting names or wrapped secrets into the log.
    digest = hashlib.sha256(canonical.dumps(details)).hexdigest()
    audit.record(
        tx,
        kind,
        actor=caller.subject,
        subject=proposal.id,
        now=now,
        details={"act": proposal.act, "on": proposal.subject, "proposed_by": proposal.proposed_by, "sha256": digest},
        personal={"reason": proposal.reason or ""},
    )
