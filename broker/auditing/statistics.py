"""Figures of the last while: credentials issued and denied per day, and how soon suspensions were confirmed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Select, func, select

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.identity.permissions import require_reader
from broker.kinds.discovery import kinds
from broker.models import LIVE_STATES, Event, Lease, Suspension

DAYS = 30
_ISSUED, _DENIED = "lease.issued", "decision.denied"


@dataclass(frozen=True, slots=True)
class Day:
    """What the gate did on one day, in UTC."""

    day: date
    issued: int
    denied: int


@dataclass(frozen=True, slots=True)
class ConfirmedEnds:
    """How long a suspension's slowest credential took until its backend confirmed the end.

    `promised`: what the kinds declare. `waiting`: how many are not confirmed yet; then `seconds` still grows.
    """

    suspension: Suspension
    leases: int
    seconds: float
    promised: int
    waiting: int

    @property
    def kept(self) -> bool:
        """Whether it was within the promise, as far as one can say."""
        return self.seconds <= self.promised


def per_day(tx: Transaction, caller: Caller, now: datetime) -> list[Day]:
    """Credentials issued and denied on each of the last 30 days, oldest first, today included.

    Raises:
        Forbidden: the caller does not see everything.
    """
    require_reader(caller)
    today = now.astimezone(UTC).date()
    counted: dict[date, dict[str, int]] = defaultdict(dict)
    for day, kind, count in tx.execute(days_query(datetime.combine(today, datetime.min.time(), UTC))):
        counted[day.date()][kind] = count
    days = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    return [Day(day, counted[day].get(_ISSUED, 0), counted[day].get(_DENIED, 0)) for day in days]


def days_query(midnight: datetime) -> Select[datetime, str, int]:
    """Counts by day and kind, over the two kinds' newest events alone: numbers and times grow together."""
    since = midnight - timedelta(days=DAYS - 1)
    first = select(Event.number).where(Event.at >= since).order_by(Event.at).limit(1).scalar_subquery()
    day = func.date_trunc("day", func.timezone("UTC", Event.at)).label("day")
    return (
        select(day, Event.kind, func.count())
        .where(Event.kind.in_((_ISSUED, _DENIED)), Event.number >= first, Event.at >= since)
        .group_by("day", Event.kind)
    )


def confirmed(tx: Transaction, suspensions: Sequence[Suspension], now: datetime) -> list[ConfirmedEnds]:
    """How soon these suspensions were confirmed, in their order; those that ended no credential are left out."""
    live = func.count().filter(Lease.state.in_(LIVE_STATES))
    rows = tx.execute(
        select(Lease.suspension_id, Lease.kind, func.count(), live, func.max(Lease.ended_at))
        .where(Lease.suspension_id.in_([item.id for item in suspensions]))
        .group_by(Lease.suspension_id, Lease.kind)
    ).all()
    found = []
    for item in suspensions:
        mine = [row for row in rows if row[0] == item.id]
        if not mine:
            continue
        ends = [now if waiting or ended is None else ended for _, _, _, waiting, ended in mine]
        endings = [kinds[kind].ending for _, kind, *_ in mine if kind in kinds]
        found.append(
            ConfirmedEnds(
                suspension=item,
                leases=sum(row[2] for row in mine),
                seconds=(max(ends) - item.started_at).total_seconds(),
                promised=max((max(ending.new_sessions, ending.open_sessions) for ending in endings), default=0),
                waiting=sum(row[3] for row in mine),
            )
        )
    return found
