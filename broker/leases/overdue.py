"""Leases that are over and that nobody has ended: whatever checks them by what was ended does not know yet."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import exists, select

from broker.base.database import Transaction
from broker.models import LIVE_STATES, Lease

# A worker that works ends a lease within seconds.
_GRACE = timedelta(seconds=30)
# By then whoever was told has ended what was open, and one that cannot be ended must not be told of for ever.
_TOLD = timedelta(minutes=5)


def some_overdue(tx: Transaction, kind: str, now: datetime) -> bool:
    """Whether leases of a kind ran out lately, and are not ended half a minute later."""
    late = Lease.expires_at.between(now - _GRACE - _TOLD, now - _GRACE)
    return bool(tx.scalar(select(exists().where(Lease.kind == kind, Lease.state.in_(LIVE_STATES), late))))
