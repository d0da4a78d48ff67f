"""Acts that take two: proposed by one admin, approved by another, carried out once, in the approval's transaction.

Knows who may propose and approve, and until when; what an act does is its performer's affair (`Performers`, put
together in `broker.web.performers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import rfc8785
from sqlalchemy import Select, or_, select

from broker import audit
from broker.caller import Caller
from broker.database import Transaction
from broker.errors import Conflict, FactorNeeded, Forbidden, Invalid, NotFound
from broker.models import PROPOSAL_ACTS, Person, Proposal, RoleHeld, is_id, new_id

Performer = Callable[[Transaction, Mapping[str, Any], str, str, datetime], None]
Performers = Mapping[str, Performer]

LIFETIME = timedelta(days=1)
# Approving is worth as much as the act itself, so it asks for the factor anew.
APPROVER_FACTOR_AGE = 900


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
        details: what the performer needs, as JSON. Never a secret; wrapped ones may be in it.
        lifetime: how long it waits before it lapses.

    Raises:
        Forbidden: the caller is no admin.
        Conflict: the act is about the caller.
    """
    if act not in PROPOSAL_ACTS:
        raise Invalid("There is no such act.", field="/act")
    _check_admin(caller)
    _check_not_about(caller, subject)
    row = Proposal(
        id=new_id("pr"),
        act=act,
        subject=subject,
        details=dict(details),
        state="pending",
        proposed_by=caller.id,
        created_at=now,
        lapses_at=now + lifetime,
    )
    tx.add(row)
    tx.flush()
    _record(tx, "proposal.made", row, caller, now)
    return row


def approve(tx: Transaction, proposal_id: str, caller: Caller, now: datetime, performers: Performers) -> Proposal:
    """Agree to an act and carry it out, in this transaction.

    Raises:
        NotFound: there is none of that id.
        Forbidden: the caller is no admin, or its proposer no longer is.
        Conflict: the caller proposed it, it is about the caller, or it is decided or lapsed.
        FactorNeeded: the caller's second factor is not fresh.
    """
    _check_admin(caller)
    if caller.factor_at is None or now - caller.factor_at > timedelta(seconds=APPROVER_FACTOR_AGE):
        raise FactorNeeded(
            "Agreeing needs a fresh second factor.", max_age=APPROVER_FACTOR_AGE, enrolled=caller.factor_enrolled
        )
    row = _pending(tx, proposal_id, now)
    if row.proposed_by == caller.id:
        raise Conflict("You proposed this.", advice="Another admin must decide.", code="self_decision")
    _check_not_about(caller, row.subject)
    _check_still_admins(tx, row.proposed_by, caller.id, now)
    _decide(tx, row, "approved", caller, now)
    performers[row.act](tx, row.details, row.proposed_by, caller.id, now)
    return row


def refuse(tx: Transaction, proposal_id: str, caller: Caller, now: datetime, *, reason: str) -> Proposal:
    """Turn an act down; whoever proposed it may take it back this way.

    Raises:
        NotFound: there is none of that id.
        Forbidden: the caller is no admin.
        Conflict: it is decided or lapsed.
    """
    _check_admin(caller)
    row = _pending(tx, proposal_id, now)
    row.reason = reason
    _decide(tx, row, "refused", caller, now)
    return row


def proposals_seen(caller: Caller) -> Select[Proposal]:
    """What admins and auditors may look at: all of them.

    Raises:
        Forbidden: the caller is neither.
    """
    if not (caller.is_admin or caller.is_auditor):
        raise Forbidden("This is for admins and auditors.", advice="Ask an admin of the organisation.")
    return select(Proposal)


def find(tx: Transaction, proposal_id: str, caller: Caller) -> Proposal:
    """One of them, for looking.

    Raises:
        NotFound: there is none of that id.
    """
    query = proposals_seen(caller).where(Proposal.id == proposal_id)
    row = tx.scalars(query).one_or_none() if is_id(proposal_id) else None
    if row is None:
        raise NotFound("There is no such proposal here.")
    return row


def _pending(tx: Transaction, proposal_id: str, now: datetime) -> Proposal:
    # The lock makes two decisions at once follow one another: the second finds it decided.
    query = select(Proposal).where(Proposal.id == proposal_id).with_for_update()
    row = tx.scalars(query).one_or_none() if is_id(proposal_id) else None
    if row is None:
        raise NotFound("There is no such proposal here.")
    if row.state != "pending":
        raise Conflict(f"This was {row.state} already.", advice="Propose it again if it is still wanted.")
    if row.lapses_at <= now:
        raise Conflict("This has lapsed.", advice="Propose it again if it is still wanted.")
    return row


def _decide(tx: Transaction, row: Proposal, state: str, caller: Caller, now: datetime) -> None:
    row.state, row.decided_by, row.decided_at = state, caller.id, now
    tx.flush()
    _record(tx, f"proposal.{state}", row, caller, now)


def _check_admin(caller: Caller) -> None:
    if not caller.is_admin:
        raise Forbidden("This is for admins.", advice="Ask an admin of the organisation.")


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


def _record(tx: Transaction, kind: str, row: Proposal, caller: Caller, now: datetime) -> None:
    details: Any = row.details
    # The digest fixes what was agreed to, without putting names or wrapped secrets into the log.
    digest = hashlib.sha256(rfc8785.dumps(details)).hexdigest()
    audit.record(
        tx,
        kind,
        actor=caller.subject,
        subject=row.id,
        now=now,
        details={"act": row.act, "about": row.subject, "proposed_by": row.proposed_by, "sha256": digest},
        personal={"reason": row.reason or ""},
    )
