"""What calls for somebody's attention on every page they open: one query."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import exists, select

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.identity.permissions import leases_seen
from broker.models import Dataset, Delivery, Lease, PolicyInForce


@dataclass(frozen=True, slots=True)
class Attention:
    """`alarm`: a lease they may see could not be ended yet. `closed`: the whole installation is closed.

    `unread`: there are notices they have not marked as read. `owns`: a dataset is theirs.
    """

    alarm: bool
    closed: bool
    unread: bool
    owns: bool


def attention(tx: Transaction, caller: Caller) -> Attention:
    """What calls for the caller's attention now."""
    alarm = exists().where(Lease.state == "revoke_failed", leases_seen(caller))
    closed = exists().where(PolicyInForce.closed_at.is_not(None))
    unread = exists().where(Delivery.person_id == caller.id, Delivery.read_at.is_(None))
    owns = exists().where(Dataset.owner_id == caller.id, Dataset.status != "retired")
    return Attention(*tx.execute(select(alarm, closed, unread, owns)).one())
