"""Ending: whoever ends a right updates its row first and then marks its leases, in one transaction.

Nothing here talks to a backend. A marked lease is `revoking`; the worker (`broker.leases.sweeping`) does what the
mark says, and only a backend's confirmation makes it `revoked` or `expired`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, select, update

from broker.base.database import Transaction, notify
from broker.base.errors import Conflict, NotFound
from broker.identity.caller import Caller
from broker.identity.permissions import held_by_vendor
from broker.identity.sessions import end_matching
from broker.log import audit
from broker.models import Dataset, Grant, Lease, Offer, Person, Service, Slice, Suspension, TeamMember, Vendor
from broker.models.oauth import ApiToken

ENDING_CHANNEL = "guestkey_ending"


def mark(tx: Transaction, where: ColumnElement[bool], *, cause: str, by: str, now: datetime) -> list[str]:
    """Mark every pending or active lease that matches as `revoking`, each with its event. Returns their ids.

    Args:
        cause: why, as a word: `revoked`, `grant_revoked`, `person_suspended`, `expired` …
        by: the actor, prefixed, or `system`.
    """
    marked = tx.execute(
        update(Lease)
        .where(where, Lease.state.in_(("pending", "active")))
        .values(
            state="revoking",
            end_cause=cause,
            end_by=by,
            ending_since=now,
            next_attempt_at=now,
            # Whoever comes to a lease first while everything is closed, the report on the closing counts it.
            suspension_id=_closing(),
        )
        .returning(Lease.id, Lease.kind)
    ).all()
    about = [(lease_id, {"cause": cause, "kind": kind}) for lease_id, kind in marked]
    audit.record_many(tx, "lease.ending", actor=by, now=now, about=about)
    if marked:
        notify(tx, ENDING_CHANNEL)
    return [lease_id for lease_id, _ in marked]


def _closing() -> ScalarSelect[str]:
    open_one = Suspension.what == "installation", Suspension.resumed_at.is_(None)
    return select(Suspension.id).where(*open_one).scalar_subquery()


def revoke_lease(tx: Transaction, lease: Lease, caller: Caller, reason: str, now: datetime) -> None:
    """Mark one lease for ending; doing it again changes nothing. Whether the caller may is the caller's affair."""
    asked = lease.state in ("pending", "active")
    if asked and mark(tx, Lease.id == lease.id, cause="revoked", by=caller.subject, now=now):
        actor, personal = caller.subject, {"reason": reason}
        audit.record(tx, "lease.revocation_asked", actor=actor, subject=lease.id, now=now, personal=personal)


def revoke_grant(tx: Transaction, grant_id: str, caller: Caller, reason: str, now: datetime) -> list[str]:
    """End a grant and every lease it carries."""
    stands = update(Grant).where(Grant.id == grant_id, Grant.revoked_at.is_(None)).returning(Grant.id)
    changed = tx.execute(stands.values(revoked_at=now, revoked_by=caller.id, revoke_reason=reason)).one_or_none()
    if changed is None:
        raise Conflict("This grant has already ended.")
    return _ended(tx, "grant.revoked", grant_id, Lease.grant_id == grant_id, caller, reason, now)


def suspend_person(tx: Transaction, person_id: str, caller: Caller, reason: str, now: datetime) -> list[str]:
    """Shut a person out: no new credential, every session out, every lease ending."""
    _set_status(tx, Person, person_id, "suspended", ("pending", "active"))
    end_matching(tx, lambda record: record.person_id == person_id, now, cause="person_suspended")
    return _ended(tx, "person.suspended", person_id, Lease.person_id == person_id, caller, reason, now)


def refuse_joiner(tx: Transaction, person: Person, caller: Caller, reason: str, now: datetime) -> Person:
    """Turn away somebody who joined and was never confirmed: every session out. They hold nothing that could end."""
    waiting = update(Person).where(Person.id == person.id, Person.status == "pending")
    changed = tx.scalars(waiting.values(status="refused").returning(Person)).one_or_none()
    if changed is None:
        raise Conflict(f"This person is {person.status}: only a person waiting for confirmation can be refused.")
    end_matching(tx, lambda record: record.person_id == person.id, now, cause="person_refused")
    audit.record(tx, "person.refused", actor=caller.subject, subject=person.id, now=now, personal={"reason": reason})
    return changed


def suspend_service(tx: Transaction, service_id: str, caller: Caller, reason: str, now: datetime) -> list[str]:
    """Shut a service out, its tokens and leases with it."""
    _set_status(tx, Service, service_id, "suspended", ("active",))
    end_tokens(tx, ApiToken.service_id == service_id, "service_suspended", now)
    return _ended(tx, "service.suspended", service_id, Lease.service_id == service_id, caller, reason, now)


def suspend_vendor(
    tx: Transaction, vendor_id: str, caller: Caller, reason: str, now: datetime, *, status: str = "suspended"
) -> list[str]:
    """Suspend (or, with `status="offboarded"`, end) a vendor: all its people and services, at once."""
    before = ("onboarding", "active") if status == "suspended" else ("onboarding", "active", "suspended")
    _set_status(tx, Vendor, vendor_id, status, before)
    people = list(tx.scalars(select(Person.id).where(Person.vendor_id == vendor_id)))
    services = list(tx.scalars(select(Service.id).where(Service.vendor_id == vendor_id)))
    end_matching(tx, lambda record: record.person_id.in_(people), now, cause=f"vendor_{status}")
    end_tokens(tx, ApiToken.service_id.in_(services), f"vendor_{status}", now)
    leases = Lease.person_id.in_(people) | Lease.service_id.in_(services)
    return _ended(tx, f"vendor.{status}", vendor_id, leases, caller, reason, now)


def suspend_dataset(
    tx: Transaction, dataset_id: str, caller: Caller, reason: str, now: datetime, *, status: str = "suspended"
) -> list[str]:
    """Close a dataset to everybody (`suspended`, or for good: `retired`)."""
    _set_status(tx, Dataset, dataset_id, status, ("active",) if status == "suspended" else ("active", "suspended"))
    return _ended(tx, f"dataset.{status}", dataset_id, Lease.dataset_id == dataset_id, caller, reason, now)


def retire_slice(tx: Transaction, slice_id: str, caller: Caller, reason: str, now: datetime) -> list[str]:
    """Retire a slice; its leases end."""
    changed = tx.execute(
        update(Slice).where(Slice.id == slice_id, Slice.state != "retired").values(state="retired").returning(Slice.id)
    ).one_or_none()
    if changed is None:
        raise NotFound("There is no such slice.")
    return _ended(tx, "slice.retired", slice_id, Lease.slice_id == slice_id, caller, reason, now)


def withdraw_offer(tx: Transaction, dataset_id: str, vendor_id: str, caller: Caller, now: datetime) -> list[str]:
    """Take a dataset out of a vendor's sight; the vendor's leases on it end."""
    stands = (Offer.dataset_id == dataset_id, Offer.vendor_id == vendor_id, Offer.ended_at.is_(None))
    changed = tx.execute(update(Offer).where(*stands).values(ended_at=now).returning(Offer.id)).one_or_none()
    if changed is None:
        raise NotFound("This dataset is not offered to that vendor.")
    leases = (Lease.dataset_id == dataset_id) & held_by_vendor(Lease, vendor_id)
    return _ended(tx, "offer.withdrawn", changed.id, leases, caller, "", now)


def leave_team(tx: Transaction, team_id: str, person_id: str, caller: Caller, now: datetime) -> list[str]:
    """Take a person out of a team; leases that rest on the team's grants end."""
    member = tx.get(TeamMember, (team_id, person_id), with_for_update=True)
    if member is None:
        raise NotFound("This person is not in that team.")
    tx.delete(member)
    tx.flush()
    of_team = Lease.grant_id.in_(select(Grant.id).where(Grant.team_id == team_id))
    leases, about = (Lease.person_id == person_id) & of_team, {"person": person_id}
    return _ended(tx, "team.member_removed", team_id, leases, caller, "", now, cause="team_left", **about)


def _ended(
    tx: Transaction,
    kind: str,
    subject: str,
    leases: ColumnElement[bool],
    caller: Caller,
    reason: str,
    now: datetime,
    *,
    cause: str = "",
    **details: str,
) -> list[str]:
    """Mark the leases of a right that has just ended, and record that it has; the cause is the event's name."""
    marked = mark(tx, leases, cause=cause or kind.replace(".", "_"), by=caller.subject, now=now)
    told, personal = {**details, "leases_ending": len(marked)}, {"reason": reason}
    audit.record(tx, kind, actor=caller.subject, subject=subject, now=now, details=told, personal=personal)
    return marked


def _set_status(tx: Transaction, record: type[Any], id_: str, status: str, before: Sequence[str]) -> None:
    changed = tx.execute(
        update(record).where(record.id == id_, record.status.in_(before)).values(status=status).returning(record.id)
    ).one_or_none()
    if changed is None:
        current = tx.execute(select(record.status).where(record.id == id_)).scalar_one_or_none()
        if current is None:
            raise NotFound("There is no such record.")
        raise Conflict(f"It is {current}, so it cannot become {status}.")


def end_tokens(tx: Transaction, where: ColumnElement[bool], cause: str, now: datetime) -> None:
    """End every live API token that matches."""
    tx.execute(update(ApiToken).where(where, ApiToken.ended_at.is_(None)).values(ended_at=now, end_cause=cause))
