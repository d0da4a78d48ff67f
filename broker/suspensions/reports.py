"""What became of each credential a suspension ended: while it happens, and as a report for ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, func, select, true

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Menu, Noun
from broker.identity.permissions import everything_or_nothing, sees_everything
from broker.kinds.discovery import kinds
from broker.leases import sweeping
from broker.models import Event, Lease, Suspension
from broker.revocation.counts import What
from broker.runtime.parts import Parts

MOST_LEASES = 5000
MOST_OPEN = 200
_ENDED = ("revoked", "expired")


@dataclass(frozen=True, slots=True)
class LeaseOutcome:
    """One lease's end: ended at, confirmed by what, or exposed until when.

    `seconds` are from the suspension to the backend's confirmation. `exposed_until` is set where nothing has confirmed
    the end, and where the credential works until then for whoever does not ask us; `by_hand` is for one that fails.
    """

    lease: str
    kind: str
    state: str
    seconds: float | None
    ended_at: datetime | None
    confirmed_by: str
    exposed_until: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    error: str
    by_hand: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsTogether:
    """What became of several credentials together.

    `failing`: how many failed at least once and are tried again. `exposed`: how many the backend cannot end before
    `exposed_until`. `longest` is in seconds until the last confirmation, and still grows while one is not confirmed.
    Until `offline_until` whoever does not ask us accepts `offline` of them.
    """

    total: int
    confirmed: int
    failing: int
    exposed: int
    longest: float
    exposed_until: datetime | None
    offline: int
    offline_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindOutcome(EndsTogether):
    """What became of the credentials of one kind; `worst_case` is what the kind declares."""

    kind: str
    worst_case: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionReport(EndsTogether):
    """A suspension and its outcomes, problems first.

    `differences` compares with the dry run: name to (expected, found). `events` are the ids of the events it is
    recorded by.
    """

    suspension: Suspension
    outcomes: Sequence[LeaseOutcome]
    by_kind: Sequence[KindOutcome]
    differences: Mapping[str, tuple[int, int]]
    events: Sequence[str]

    @property
    def finished(self) -> bool:
        """Whether every end was confirmed."""
        return self.confirmed == self.total


def _seen(caller: Caller) -> ColumnElement[bool]:
    return true() if sees_everything(caller) else Suspension.suspended_by == caller.id


SUSPENSIONS = Noun(
    "suspension",
    "suspensions",
    "su",
    Suspension,
    about="Suspending vendors, people, services and datasets, and how each credential ended.",
    menu=Menu("Suspensions", sees_everything),
    display=Display(
        columns="id!, what, name, since=started_at@, lifted=resumed_at@",
        none="No suspensions.",
        details=(
            "id, what, name, target, reason, message, since=started_at@, lifted=resumed_at@, leases=total, "
            "confirmed ended=confirmed, failing, cannot end sooner=exposed, exposed until=exposed_until@, "
            "longest exposure=longest#, accepted offline until=offline_until@"
        ),
    ),
    seen=_seen,
    named_to=everything_or_nothing,
    called=Suspension.name,
    filters=(
        Filter("what", What, Suspension.what),
        Filter(
            "state",
            Literal["open", "lifted"],
            lambda _, __, state: (
                Suspension.resumed_at.is_(None) if state == "open" else Suspension.resumed_at.is_not(None)
            ),
        ),
    ),
    events={
        "suspension.begun": "{who} began the suspension of {whom}.",
        "suspension.lifted": "{who} lifted the suspension of {whom}.",
    },
)


def open_suspension(tx: Transaction, caller: Caller, what: str, target_id: str) -> Suspension | None:
    """The suspension that something is under now, if the caller may see it."""
    query = select(Suspension).where(
        Suspension.what == what, Suspension.target_id == target_id, Suspension.resumed_at.is_(None), _seen(caller)
    )
    return tx.scalars(query).one_or_none()


def report(
    parts: Parts, tx: Transaction, caller: Caller, suspension_id: str, now: datetime, *, only_open: bool = False
) -> SuspensionReport:
    """How far a suspension is, or was.

    Args:
        only_open: leave out what has ended, and the events: for those who look again every second.

    Raises:
        NotFound: there is none of that id that the caller may see.
    """
    suspension = SUSPENSIONS.one(tx, caller, suspension_id)
    wanted = Lease.suspension_id == suspension.id
    if only_open:
        wanted &= Lease.state.not_in(_ENDED)
    problems_first = (Lease.state != "revoke_failed", Lease.exposed_until.is_(None), Lease.state.in_(_ENDED), Lease.id)
    most = MOST_OPEN if only_open else MOST_LEASES
    leases = tx.scalars(select(Lease).where(wanted).order_by(*problems_first).limit(most)).all()
    by_hand = sweeping.by_hand(parts, tx, leases, now) if sees_everything(caller) else None
    outcomes = [_outcome(suspension, lease, by_hand) for lease in leases]
    by_kind = _by_kind(tx, suspension, now)
    return SuspensionReport(
        suspension=suspension,
        outcomes=outcomes,
        by_kind=by_kind,
        total=sum(one.total for one in by_kind),
        confirmed=sum(one.confirmed for one in by_kind),
        failing=sum(one.failing for one in by_kind),
        exposed=sum(one.exposed for one in by_kind),
        longest=max((one.longest for one in by_kind), default=0.0),
        exposed_until=max((one.exposed_until for one in by_kind if one.exposed_until), default=None),
        offline=sum(one.offline for one in by_kind),
        offline_until=max((one.offline_until for one in by_kind if one.offline_until), default=None),
        differences=_differences(suspension),
        events=[] if only_open else _events(tx, suspension, [lease.id for lease in leases]),
    )


def _by_kind(tx: Transaction, suspension: Suspension, now: datetime) -> list[KindOutcome]:
    ended = Lease.state.in_(_ENDED)
    exposed = (Lease.state == "revoking") & (Lease.exposed_until > now)
    rows = tx.execute(
        select(
            Lease.kind,
            func.count(),
            func.count().filter(ended),
            func.count().filter(Lease.state == "revoke_failed"),
            func.count().filter(exposed),
            func.max(Lease.ended_at),
            func.max(Lease.exposed_until).filter(exposed),
            func.count().filter(Lease.expires_at > now),
            func.max(Lease.expires_at),
        )
        .where(Lease.suspension_id == suspension.id)
        .group_by(Lease.kind)
        .order_by(Lease.kind)
    ).all()
    found = []
    for kind, total, confirmed, failing, held, last, held_until, unexpired, expires_at in rows:
        until = last if confirmed == total and last is not None else now
        worst_case = kinds[kind].ending.worst_case
        found.append(
            KindOutcome(
                kind=kind,
                total=total,
                confirmed=confirmed,
                failing=failing,
                exposed=held,
                longest=(until - suspension.started_at).total_seconds(),
                exposed_until=held_until,
                offline=unexpired if worst_case is None else 0,
                offline_until=expires_at if worst_case is None else None,
                worst_case=worst_case,
            )
        )
    return found


def _outcome(suspension: Suspension, lease: Lease, by_hand: Mapping[str, str] | None) -> LeaseOutcome:
    """What became of one lease; what its backend said, and what to type there, is for the organisation alone."""
    ended, failing = lease.state in _ENDED, lease.state == "revoke_failed"
    return LeaseOutcome(
        lease=lease.id,
        kind=lease.kind,
        state=lease.state,
        seconds=(lease.ended_at - suspension.started_at).total_seconds() if ended and lease.ended_at else None,
        ended_at=lease.ended_at if ended else None,
        confirmed_by=lease.confirmed_by,
        exposed_until=_exposed_until(lease),
        attempts=lease.attempts,
        next_attempt_at=lease.next_attempt_at if failing else None,
        error=lease.last_error if failing and by_hand is not None else "",
        by_hand=by_hand.get(lease.id, "") if by_hand is not None else "",
    )


def _exposed_until(lease: Lease) -> datetime | None:
    """At the latest: what its backend said, else its own end and what its kind declares beyond that."""
    worst_case = kinds[lease.kind].ending.worst_case
    if lease.state in _ENDED:
        offline = worst_case is None and lease.ended_at is not None and lease.ended_at < lease.expires_at
        return lease.expires_at if offline else None
    return lease.exposed_until or lease.expires_at + timedelta(seconds=worst_case or 0)


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
