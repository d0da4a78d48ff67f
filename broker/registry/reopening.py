"""Letting something in again that was shut out, or for the first time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import update

from broker.base.database import Transaction
from broker.base.errors import Conflict
from broker.identity.caller import Caller
from broker.identity.nouns import Noun, Record
from broker.log import audit


def reopen(
    tx: Transaction,
    caller: Caller,
    noun: Noun[Record],
    found: Any,
    kind: str,
    reason: str,
    now: datetime,
    *,
    before: str = "suspended",
    status: str = "active",
) -> Record:
    """Change a status, with its event; who may is decided by the caller of this.

    Raises:
        Conflict: the status is not the one `before`.
    """
    record: Any = noun.record
    change = update(record).where(record.id == found.id, record.status == before).values(status=status)
    changed: Record | None = tx.scalars(change.returning(record)).one_or_none()
    if changed is None:
        raise Conflict(f"This {noun.name} is {found.status}, not {before}.")
    audit.record(tx, kind, actor=caller.subject, subject=found.id, now=now, personal={"reason": reason})
    return changed
