"""Responses stored for requests that may be repeated. None holds a secret."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.errors import Conflict
from broker.models import StoredResponse

KEPT = timedelta(days=1)


def claim(tx: Transaction, key_hash: bytes, request_hash: bytes, now: datetime) -> StoredResponse | None:
    """Claim a key for a request, or return the answer that its first use got.

    Raises:
        Conflict: the key was used for another request.
    """
    fresh = {"request_hash": request_hash, "status": 0, "body": None, "created_at": now, "expires_at": now + KEPT}
    row = insert(StoredResponse).values(key_hash=key_hash, **fresh)
    # A repeat under way waits here for the first to commit; an expired key starts anew.
    expired = StoredResponse.expires_at <= now
    claiming = row.on_conflict_do_update(index_elements=["key_hash"], set_=fresh, where=expired)
    if tx.scalar(claiming.returning(StoredResponse.key_hash)) is not None:
        return None
    kept = tx.scalars(select(StoredResponse).where(StoredResponse.key_hash == key_hash)).one()
    if kept.request_hash != request_hash:
        raise Conflict(
            "This idempotency key was used for a different request.",
            advice="Use a new key.",
            code="idempotency_key_reused",
        )
    return kept


def keep(tx: Transaction, key_hash: bytes, status: int, body: dict[str, Any]) -> None:
    """Keep the answer of the request that claimed the key."""
    tx.execute(update(StoredResponse).where(StoredResponse.key_hash == key_hash).values(status=status, body=body))
