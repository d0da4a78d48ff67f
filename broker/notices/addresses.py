"""Where a person's notices go: what their provider calls a verified address, at each sign-in, and nothing else.

An address is never an identity: nobody is found, joined or let in by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects.postgresql import insert

from broker.database import Transaction
from broker.models import NoticeAddress
from broker.notices.mail import address


def note(tx: Transaction, person_id: str, claims: Mapping[str, Any]) -> None:
    """Keep the address of these verified claims; one that is no longer called verified is forgotten."""
    claimed = claims.get("email") if claims.get("email_verified") is True else None
    found = address(claimed) if isinstance(claimed, str) else ""
    held = insert(NoticeAddress).values(person_id=person_id, address=found)
    changed = NoticeAddress.address != held.excluded.address
    update = {"address": held.excluded.address}
    tx.execute(held.on_conflict_do_update(index_elements=[NoticeAddress.person_id], set_=update, where=changed))
