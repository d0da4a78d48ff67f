"""Places that could not be asked which credentials they hold: said once when it begins, remembered, said when it ends.

While a place is silent nothing is known of what lives there, so that is an alarm and never a clean bill.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.log import audit
from broker.models import UnreachablePlace
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)


def note(parts: Parts, kind: str, asked: Collection[str], unasked: Mapping[str, str]) -> None:
    """What the places of a kind answered in one round. One that is silent still is no new event.

    Args:
        unasked: by place, why it could not be asked.
    """
    with parts.database.transaction() as tx:
        now = clock(tx)
        known = dict(
            tx.execute(select(UnreachablePlace.place, UnreachablePlace.why).where(UnreachablePlace.kind == kind)).all()
        )
        for place, why in unasked.items():
            log.error("place.silent", kind=kind, place=place, why=why[:200])
            new = insert(UnreachablePlace).values(kind=kind, place=place, why=why).on_conflict_do_nothing()
            if tx.execute(new.returning(UnreachablePlace.place)).one_or_none() is not None:
                _event(tx, "place.silent", now, kind, place, why=why)
        # A place no slice lives at any more is forgotten without a word.
        for place in sorted(known.keys() - unasked.keys()):
            over = delete(UnreachablePlace).where(UnreachablePlace.kind == kind, UnreachablePlace.place == place)
            if tx.execute(over.returning(UnreachablePlace.place)).one_or_none() is not None and place in asked:
                _event(tx, "place.answered", now, kind, place)


def counted(tx: Transaction) -> dict[str, int]:
    """How many places of each kind were silent when last asked."""
    query = select(UnreachablePlace.kind, func.count()).group_by(UnreachablePlace.kind)
    return dict(tx.execute(query).all())


def _event(tx: Transaction, event: str, now: datetime, kind: str, place: str, **more: str) -> None:
    subject = f"{kind}:{place}"[:80]
    audit.record(
        tx, event, actor=audit.SYSTEM, subject=subject, now=now, details={"kind": kind, "place": place, **more}
    )
