"""What hosts ask: whether a lease's certificate may let somebody in now, and which may not any more.

Read from the records, so an ended lease is refused on every replica from that commit on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import exists, select

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.kinds.base import Kind
from broker.log import audit
from broker.models import LIVE_STATES, Event, Lease, Slice

# A certificate may outlive its lease by a minute, and clocks of hosts and OpenBao may differ by the rest, before a
# revoked one leaves the list too early.
_SLACK = timedelta(seconds=360)
_USED = "lease.used"
_USE_NOTED_EVERY = timedelta(minutes=1)
# A worker that works ends a lease within seconds.
_GRACE = timedelta(seconds=30)
# By then whoever was told has ended what was open, and one that cannot be ended must not be told of for ever.
_TOLD = timedelta(minutes=5)


def lets_in(
    tx: Transaction, kind: Kind, connection: str, handle: str, account: str, certificate: str, now: datetime
) -> bool:
    """Whether this certificate opens this account of this host now. Why not is told to nobody.

    The certificate's key must be the one the lease was issued for: another one under the same name was made by
    somebody else.
    """
    lease = tx.get(Lease, handle.rpartition("-")[2])
    if lease is None or lease.handle != handle or lease.kind != kind.name:
        return False
    if lease.state != "active" or lease.expires_at <= now:
        return False
    if tx.get_one(Slice, lease.slice_id).binding.get("connection") != connection:
        return False
    public_key = kind.key_shown(handle, lease.slice_id, lease.action, account, certificate)
    return public_key is not None and hashlib.sha256(public_key.encode()).digest() == lease.key_hash


def note_use(tx: Transaction, handle: str, connection: str, host: Caller, now: datetime) -> None:
    """Record that a lease's certificate is being used; once a minute, for a log-in asks twice.

    Args:
        host: the service that asked.
    """
    lease = tx.get_one(Lease, handle.rpartition("-")[2])
    lately = select(Event.id).where(Event.subject == lease.id, Event.kind == _USED, Event.at > now - _USE_NOTED_EVERY)
    if tx.execute(lately.limit(1)).first() is None:
        details = {"kind": lease.kind, "connection": connection, "host": host.subject}
        audit.record(tx, _USED, actor=lease.holder, subject=lease.id, now=now, details=details)


def revoked(tx: Transaction, kind: Kind, connection: str, now: datetime) -> Sequence[str]:
    """The handles of a host's leases that are ending or ended while their certificates have not run out."""
    query = (
        select(Lease.handle)
        .join(Slice, Slice.id == Lease.slice_id)
        .where(
            Lease.kind == kind.name,
            Lease.expires_at > now - _SLACK,
            Lease.state.not_in(("pending", "active")),
            Slice.binding["connection"].astext == connection,
        )
        .order_by(Lease.handle)
    )
    return list(tx.scalars(query))


def some_overdue(tx: Transaction, kind: str, now: datetime) -> bool:
    """Whether leases of a kind ran out lately, and are not ended half a minute later."""
    late = Lease.expires_at.between(now - _GRACE - _TOLD, now - _GRACE)
    return bool(tx.scalar(select(exists().where(Lease.kind == kind, Lease.state.in_(LIVE_STATES), late))))
