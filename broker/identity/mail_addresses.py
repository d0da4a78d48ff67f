"""Where a person's notices go: what their provider calls a verified address, at each sign-in, and nothing else.

An address is never an identity: nobody is found, joined or let in by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.models import NoticeAddress, Person, Vendor
from broker.outbound.smtp import address


def remember(tx: Transaction, person_id: str, claims: Mapping[str, Any]) -> None:
    """Keep the address of these verified claims; one that is no longer called verified is forgotten."""
    claimed = claims.get("email") if claims.get("email_verified") is True else None
    found = address(claimed) if isinstance(claimed, str) else ""
    held = insert(NoticeAddress).values(person_id=person_id, address=found)
    changed = NoticeAddress.address != held.excluded.address
    update = {"address": held.excluded.address}
    tx.execute(held.on_conflict_do_update(index_elements=[NoticeAddress.person_id], set_=update, where=changed))


def deliverable(tx: Transaction, people: Sequence[str]) -> Sequence[NoticeAddress]:
    """The addresses of those who may be mailed: active, and if of a vendor, of one that works for us."""
    ours = or_(Person.vendor_id.is_(None), Vendor.status.in_(("onboarding", "active")))
    return tx.scalars(
        select(NoticeAddress)
        .join(Person, Person.id == NoticeAddress.person_id)
        .outerjoin(Vendor, Vendor.id == Person.vendor_id)
        .where(NoticeAddress.person_id.in_(people), NoticeAddress.address != "", Person.status == "active", ours)
        # In one order, so that two workers who begin digests never wait for each other.
        .order_by(NoticeAddress.person_id)
    ).all()
