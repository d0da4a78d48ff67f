"""Suspending a vendor, a person or a dataset: what it would end (dry run), doing it, and lifting it again.

What became of each credential is told by `broker.access.suspension_reports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, Select, func, or_, select, update

from broker import audit
from broker.access import datasets, people, vendors, words
from broker.access.datasets import require_owner_or_admin
from broker.access.permissions import is_lead, require_admin
from broker.caller import Caller
from broker.credentials import kinds
from broker.credentials.base import Ending
from broker.database import Transaction
from broker.errors import Forbidden
from broker.models import (
    ApiToken,
    Dataset,
    Grant,
    Lease,
    Person,
    Request,
    Service,
    Session,
    Suspension,
    Team,
    new_id,
)

What = Literal["vendor", "person", "dataset"]
_LIVE = ("pending", "active")


@dataclass(frozen=True, slots=True)
class Target:
    """What is suspended. `key` names it in addresses: a dataset's slug, else its id."""

    what: What
    id: str
    key: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a suspension ends, or stops from being used. `leases` is by kind."""

    people: int
    services: int
    sessions: int
    tokens: int
    grants: int
    requests: int
    leases: Mapping[str, int]

    @property
    def all_leases(self) -> int:
        """Leases of every kind."""
        return sum(self.leases.values())


@dataclass(frozen=True, slots=True)
class DryRun:
    """What suspending would do now. `worst`: the longest declared exposure in seconds, None if offline use goes on.

    `latest`: by kind, when its last credential expires by itself.
    """

    target: Target
    counts: Counts
    endings: Mapping[str, Ending]
    worst: int | None
    remains: tuple[str, ...]
    latest: Mapping[str, datetime]


def find(tx: Transaction, caller: Caller, what: What, key: str) -> Target:
    """What is to be suspended.

    Raises:
        NotFound: there is none that the caller may see.
        Forbidden: suspending it is not for the caller.
    """
    if what == "vendor":
        require_admin(caller)
        vendor = vendors.vendor(tx, caller, key)
        return Target(what, vendor.id, vendor.id, vendor.name, vendor.status)
    if what == "person":
        person = people.person(tx, caller, key)
        if not (caller.is_admin or is_lead(caller, person.vendor_id)):
            raise Forbidden("Only admins and the lead of the same vendor suspend people.")
        return Target(what, person.id, person.id, person.name or person.email or person.id, person.status)
    dataset = datasets.dataset(tx, caller, key)
    require_owner_or_admin(caller, dataset)
    return Target(what, dataset.id, dataset.slug, dataset.title, dataset.status)


def dry_run(tx: Transaction, caller: Caller, what: What, key: str) -> DryRun:
    """What suspending would end, how, how fast, and what would go on. Changes nothing.

    Raises:
        NotFound, Forbidden: as for `find`.
    """
    target = find(tx, caller, what, key)
    counts = _count(tx, target)
    endings = {name: kinds[name].ending for name in counts.leases}
    worst = [ending.worst_case for ending in endings.values()]
    return DryRun(
        target,
        counts,
        endings,
        None if None in worst else max((seconds for seconds in worst if seconds is not None), default=0),
        _remains(target, endings),
        _latest(tx, target),
    )


def suspend(
    tx: Transaction,
    caller: Caller,
    what: What,
    key: str,
    reason: str,
    now: datetime,
    *,
    message: str = "",
    expected: Mapping[str, Any] | None = None,
) -> tuple[Suspension, list[str]]:
    """Suspend at once; returns the suspension and the leases now ending, those newer than the dry run included.

    Args:
        message: what those shut out are told when they come back.
        expected: the counts of the dry run that was agreed to, for the report's comparison.

    Raises:
        NotFound, Forbidden: as for `find`.
        Conflict: it is not active, or too few admins would be left.
    """
    target = find(tx, caller, what, key)
    found = _count(tx, target)
    act = cast("Callable[[Transaction, Caller, str, str, datetime], list[str]]", _ACTS[what])
    leases = act(tx, caller, target.key, reason, now)
    suspension = Suspension(
        id=new_id("su"),
        what=what,
        target_id=target.id,
        name=target.name[:200],
        reason=words.prose(reason, "/reason"),
        message=words.prose(message, "/message", needed=False),
        expected=dict(expected) if expected else None,
        found=asdict(found),
        suspended_by=caller.id,
        started_at=now,
    )
    tx.add(suspension)
    tx.flush()
    tx.execute(update(Lease).where(Lease.id.in_(leases)).values(suspension_id=suspension.id))
    audit.record(
        tx,
        "suspension.begun",
        actor=caller.subject,
        subject=suspension.id,
        now=now,
        details={"what": what, "target": target.id, "leases": len(leases)},
    )
    return suspension, leases


def note_resumed(tx: Transaction, caller: Caller, what: What, target_id: str, now: datetime) -> None:
    """Close the open suspension of something that was let in again."""
    closed = tx.execute(
        update(Suspension)
        .where(Suspension.what == what, Suspension.target_id == target_id, Suspension.resumed_at.is_(None))
        .values(resumed_at=now, resumed_by=caller.id)
        .returning(Suspension.id)
    ).scalar_one_or_none()
    if closed is not None:
        audit.record(tx, "suspension.lifted", actor=caller.subject, subject=closed, now=now)


def resume(tx: Transaction, caller: Caller, what: What, key: str, reason: str, now: datetime) -> Target:
    """Let it in again. No session and no lease comes back.

    Raises:
        NotFound, Forbidden: as for `find`.
        Conflict: it is not suspended.
    """
    target = find(tx, caller, what, key)
    _RESUMES[what](tx, caller, target.key, reason, now)
    note_resumed(tx, caller, what, target.id, now)
    return find(tx, caller, what, key)


_ACTS: Mapping[What, object] = {
    "vendor": vendors.suspend_vendor,
    "person": people.suspend_person,
    "dataset": datasets.suspend_dataset,
}
_RESUMES: Mapping[What, Callable[[Transaction, Caller, str, str, datetime], object]] = {
    "vendor": vendors.resume_vendor,
    "person": people.resume_person,
    "dataset": datasets.resume_dataset,
}


def key_of(tx: Transaction, what: What, target_id: str) -> str:
    """What names a target in addresses, given its id."""
    if what != "dataset":
        return target_id
    return tx.execute(select(Dataset.slug).where(Dataset.id == target_id)).scalar_one_or_none() or target_id


def _count(tx: Transaction, target: Target) -> Counts:
    staff, services = _members(target)
    of_staff = _in(staff)

    def number(query: Select[Any]) -> int:
        return tx.execute(select(func.count()).select_from(query.subquery())).scalar_one()

    signed_in = target.what != "dataset"
    by_kind = tx.execute(
        select(Lease.kind, func.count()).where(_leases(target), Lease.state.in_(_LIVE)).group_by(Lease.kind)
    ).all()
    return Counts(
        people=number(staff) if signed_in else number(select(Lease.person_id).where(_live(target)).distinct()),
        services=number(services) if signed_in else 0,
        sessions=number(select(Session.id).where(of_staff(Session.person_id), Session.ended_at.is_(None)))
        if signed_in
        else 0,
        tokens=number(
            select(ApiToken.id).where(
                or_(of_staff(ApiToken.person_id), ApiToken.service_id.in_(services)), ApiToken.ended_at.is_(None)
            )
        )
        if signed_in
        else 0,
        grants=number(select(Grant.id).where(_grants(target), Grant.revoked_at.is_(None), Grant.ends_at > func.now())),
        requests=number(select(Request.id).where(_requests(target), Request.state == "pending")),
        leases=dict(sorted((kind, count) for kind, count in by_kind)),
    )


def _latest(tx: Transaction, target: Target) -> dict[str, datetime]:
    live = select(Lease.kind, func.max(Lease.expires_at)).where(_leases(target), Lease.state.in_(_LIVE))
    return dict(tx.execute(live.group_by(Lease.kind)).all())


def _members(target: Target) -> tuple[Select[str], Select[str]]:
    """The people and services it is about."""
    if target.what == "person":
        return select(Person.id).where(Person.id == target.id), select(Service.id).where(Service.id == "")
    return (
        select(Person.id).where(Person.vendor_id == target.id, Person.status != "suspended"),
        select(Service.id).where(Service.vendor_id == target.id, Service.status == "active"),
    )


def _in(ids: Select[str]) -> Callable[[Any], ColumnElement[bool]]:
    return lambda column: cast("ColumnElement[bool]", column.in_(ids))


def _live(target: Target) -> ColumnElement[bool]:
    return _leases(target) & Lease.state.in_(_LIVE) & Lease.person_id.is_not(None)


def _leases(target: Target) -> ColumnElement[bool]:
    if target.what == "dataset":
        return Lease.dataset_id == target.id
    if target.what == "person":
        return Lease.person_id == target.id
    return Lease.person_id.in_(_of(Person, target)) | Lease.service_id.in_(_of(Service, target))


def _grants(target: Target) -> ColumnElement[bool]:
    if target.what == "dataset":
        return Grant.dataset_id == target.id
    if target.what == "person":
        return Grant.person_id == target.id
    return (
        Grant.person_id.in_(_of(Person, target))
        | Grant.team_id.in_(_of(Team, target))
        | Grant.service_id.in_(_of(Service, target))
    )


def _requests(target: Target) -> ColumnElement[bool]:
    if target.what == "dataset":
        return Request.dataset_id == target.id
    if target.what == "person":
        return Request.person_id == target.id
    return Request.person_id.in_(_of(Person, target))


def _of(record: type[Person] | type[Team] | type[Service], target: Target) -> Select[str]:
    return select(record.id).where(record.vendor_id == target.id)


def _remains(target: Target, endings: Mapping[str, Ending]) -> tuple[str, ...]:
    """What a suspension does not end, said before it is agreed to."""
    said = ["What has been read or copied already."]
    offline = [name for name, ending in endings.items() if ending.worst_case is None]
    if offline:
        said.append(f"Use of a credential of kind {' or '.join(offline)} where nobody asks Guestkey, until it expires.")
    said.append(
        {
            "vendor": "Grants stay on record and count again after resuming; others on the same datasets go on.",
            "person": "Their grants stay on record and count again after resuming; colleagues go on.",
            "dataset": "Grants stay on record and count again after resuming; people stay signed in.",
        }[target.what]
    )
    return tuple(said)
