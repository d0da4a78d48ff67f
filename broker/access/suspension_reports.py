"""What became of each credential a suspension ended: while it happens, and as a report for ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, true

from broker.access.paging import Page, Window, matching, page
from broker.access.permissions import missing, sees_everything
from broker.caller import Caller
from broker.credentials import kinds
from broker.credentials.base import LeaseToEnd
from broker.database import Transaction
from broker.models import Event, Lease, Slice, Suspension, is_id

MOST_LEASES = 5000
_ENDED = ("revoked", "expired")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One lease's end. `seconds` from the suspension to the backend's confirmation; `by_hand` for one that fails."""

    lease: str
    kind: str
    state: str
    seconds: float | None
    confirmed_by: str
    exposed_until: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    error: str
    by_hand: str


@dataclass(frozen=True, slots=True)
class Report:
    """A suspension and its outcomes, problems first.

    `longest` is in seconds; while something is not confirmed it still grows. `differences` compares with the dry run:
    name to (expected, found). `events` are the ids of the events it is recorded by. Until `offline_until` whoever
    checks one of the credentials without asking us still accepts it; None where there is none such.
    """

    suspension: Suspension
    outcomes: Sequence[Outcome]
    total: int
    confirmed: int
    failing: int
    longest: float
    offline_until: datetime | None
    differences: Mapping[str, tuple[int, int]]
    events: Sequence[str]

    @property
    def finished(self) -> bool:
        """Whether every end was confirmed."""
        return self.confirmed == self.total


def list_suspensions(
    tx: Transaction, caller: Caller, window: Window, *, what: str | None = None, state: str | None = None
) -> Page[Suspension]:
    """Suspensions, newest first: all for admins and auditors, one's own for everybody else.

    Args:
        state: `open` or `lifted`.
    """
    query = select(Suspension).where(_seen(caller), *matching((Suspension.what, what)))
    if state is not None:
        query = query.where(Suspension.resumed_at.is_(None) if state == "open" else Suspension.resumed_at.is_not(None))
    return page(tx, query, Suspension.id, window)


def open_suspension(tx: Transaction, caller: Caller, what: str, target_id: str) -> Suspension | None:
    """The suspension that something is under now, if the caller may see it."""
    query = select(Suspension).where(
        Suspension.what == what, Suspension.target_id == target_id, Suspension.resumed_at.is_(None), _seen(caller)
    )
    return tx.scalars(query).one_or_none()


def report(tx: Transaction, caller: Caller, suspension_id: str, now: datetime) -> Report:
    """How far a suspension is, or was.

    Raises:
        NotFound: there is none of that id that the caller may see.
    """
    query = select(Suspension).where(Suspension.id == suspension_id, _seen(caller))
    suspension = tx.scalars(query).one_or_none() if is_id(suspension_id) else None
    if suspension is None:
        raise missing("suspension")
    counted = dict(
        tx.execute(
            select(Lease.state, func.count()).where(Lease.suspension_id == suspension.id).group_by(Lease.state)
        ).all()
    )
    rows = tx.execute(
        select(Lease, Slice.binding)
        .join(Slice, Slice.id == Lease.slice_id)
        .where(Lease.suspension_id == suspension.id)
        .order_by(Lease.id)
        .limit(MOST_LEASES)
    ).all()
    outcomes = [_outcome(suspension, lease, binding, inside=sees_everything(caller)) for lease, binding in rows]
    outcomes.sort(key=lambda outcome: (outcome.state != "revoke_failed", outcome.state in _ENDED))
    waiting = (now - suspension.started_at).total_seconds()
    return Report(
        suspension=suspension,
        outcomes=outcomes,
        total=sum(counted.values()),
        confirmed=sum(counted.get(state, 0) for state in _ENDED),
        failing=counted.get("revoke_failed", 0),
        longest=max((waiting if o.seconds is None else o.seconds for o in outcomes), default=0.0),
        offline_until=max((lease.expires_at for lease, _ in rows if _checked_offline(lease)), default=None),
        differences=_differences(suspension),
        events=_events(tx, suspension, [outcome.lease for outcome in outcomes]),
    )


def _checked_offline(lease: Lease) -> bool:
    return kinds[lease.kind].ending.worst_case is None


def _seen(caller: Caller) -> ColumnElement[bool]:
    return true() if caller.is_admin or caller.is_auditor else Suspension.suspended_by == caller.id


def _outcome(suspension: Suspension, lease: Lease, binding: Mapping[str, object], *, inside: bool) -> Outcome:
    """What became of one lease; what its backend said, and what to type there, is for the organisation alone."""
    ended, failing = lease.state in _ENDED, lease.state == "revoke_failed"
    to_end = LeaseToEnd(lease.id, lease.handle, binding, lease.backend_lease_id, action=lease.action)
    return Outcome(
        lease=lease.id,
        kind=lease.kind,
        state=lease.state,
        seconds=(lease.ended_at - suspension.started_at).total_seconds() if ended and lease.ended_at else None,
        confirmed_by=lease.confirmed_by,
        exposed_until=None if ended else lease.exposed_until or lease.expires_at,
        attempts=lease.attempts,
        next_attempt_at=lease.next_attempt_at if failing else None,
        error=lease.last_error if failing and inside else "",
        by_hand=kinds[lease.kind].by_hand(to_end) if failing and inside else "",
    )


def _differences(suspension: Suspension) -> dict[str, tuple[int, int]]:
    """Where what there was at the moment differs from what the dry run had shown."""
    expected, found = _flat(suspension.expected or {}), _flat(suspension.found)
    if not expected:
        return {}
    return {
        name: (expected.get(name, 0), found.get(name, 0))
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name, 0) != found.get(name, 0)
    }


def _flat(counts: Mapping[str, object]) -> dict[str, int]:
    flat = {name: count for name, count in counts.items() if isinstance(count, int)}
    leases = counts.get("leases")
    if isinstance(leases, Mapping):
        flat |= {f"{kind} leases": count for kind, count in leases.items() if isinstance(count, int)}
    return flat


def _events(tx: Transaction, suspension: Suspension, leases: Sequence[str]) -> Sequence[str]:
    about = [suspension.id, *leases]
    kinds_of_end = ("suspension.begun", "suspension.lifted", "lease.ending", "lease.revoked", "lease.revoke_failed")
    return tx.scalars(
        select(Event.id).where(Event.subject.in_(about), Event.kind.in_(kinds_of_end)).order_by(Event.number)
    ).all()
