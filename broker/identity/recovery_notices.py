"""What every admin must see wherever they look first: that the glass was broken, and by which invitation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.models import Event

SHOWN_FOR = timedelta(days=7)
_SENTENCES = {
    "recovery.begun": "`guestkey recover` created an admin invitation on the server.",
    "recovery.used": "Someone used a recovery invitation and is an admin for an hour.",
}
_MOST = 20


@dataclass(frozen=True, slots=True)
class RecoveryNotice:
    """One of them; `subject` is the event's."""

    at: datetime
    kind: str
    subject: str
    sentence: str


def for_caller(tx: Transaction, caller: Caller, now: datetime) -> list[RecoveryNotice]:
    """The notices of the last days, newest first; for admins and auditors, nobody else has any."""
    if not (caller.is_admin or caller.is_auditor):
        return []
    query = select(Event.at, Event.kind, Event.subject).where(Event.kind.in_(_SENTENCES), Event.at > now - SHOWN_FOR)
    rows = tx.execute(query.order_by(Event.number.desc()).limit(_MOST))
    return [RecoveryNotice(row.at, row.kind, row.subject, _SENTENCES[row.kind]) for row in rows]
