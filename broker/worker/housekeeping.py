"""What passes with time: requests and proposals nobody decided lapse, and used-up short-lived rows go."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, update

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.log import audit
from broker.models import (
    AuthorizationCode,
    DatasetDraft,
    FactorChallenge,
    Proposal,
    Request,
    SignInAttempt,
    StoredResponse,
)
from broker.runtime.parts import Parts


def tidy(parts: Parts) -> int:
    """Lapse what is overdue, delete what has expired. Returns how many lapsed."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        lapsed = _lapse(tx, now)
        for record in (SignInAttempt, FactorChallenge, StoredResponse, DatasetDraft):
            tx.execute(delete(record).where(record.expires_at < now))
        # Kept for a while after their minute, because a replayed code must still be recognised as one.
        tx.execute(delete(AuthorizationCode).where(AuthorizationCode.expires_at < now - timedelta(days=1)))
        return lapsed


def _lapse(tx: Transaction, now: datetime) -> int:
    lapsed = 0
    for record, noun in ((Request, "request"), (Proposal, "proposal")):
        ids = tx.scalars(
            update(record)
            .where(record.state == "pending", record.lapses_at <= now)
            .values(state="lapsed", decided_at=now)
            .returning(record.id)
        ).all()
        for id_ in ids:
            audit.record(tx, f"{noun}.lapsed", actor=audit.SYSTEM, subject=id_, now=now)
        lapsed += len(ids)
    return lapsed
