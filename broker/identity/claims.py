"""What a person is called and where their notices go, from claims whose types nobody vouches for.

Shown and mailed to, never matched: nobody is found, joined or let in by a name or an address. A claim of another JSON
type than the specification gives it (OpenID Connect Core 1.0, section 5.1) is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.models import NoticeAddress, Person, Vendor
from broker.outbound.smtp import address

log = structlog.get_logger(__name__)
_LONGEST_NAME = 200
_LONGEST_ADDRESS = 320


def display_name(claims: Mapping[str, Any]) -> str:
    """The name to show; empty: the provider tells none."""
    parts = (_text(claims, "given_name", _LONGEST_NAME), _text(claims, "family_name", _LONGEST_NAME))
    return (
        _text(claims, "name", _LONGEST_NAME)
        or " ".join(filter(None, parts))[:_LONGEST_NAME]
        or _text(claims, "preferred_username", _LONGEST_NAME)
        or _text(claims, "nickname", _LONGEST_NAME)
    )


def display_address(claims: Mapping[str, Any]) -> str:
    """The address to show; empty: the provider tells none, or does not call it verified (`email_verified: true`).

    What nobody verified could be anybody's address, and whoever confirms a person would take it for theirs.
    """
    verified = claims.get("email_verified", False)
    if verified is not True:
        if verified is not False:
            log.warning("claim.type", claim="email_verified", type=type(verified).__name__)
        return ""
    return _text(claims, "email", _LONGEST_ADDRESS)


def still_shown(address: str, claims: Mapping[str, Any]) -> str:
    """The address known so far; empty where the provider tells that very one and does not call it verified."""
    return "" if claims.get("email") == address != display_address(claims) else address


def _text(claims: Mapping[str, Any], name: str, most: int) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        if value is not None:
            log.warning("claim.type", claim=name, type=type(value).__name__)
        return ""
    return "".join(character for character in value if character.isprintable())[:most].strip()


def remember_address(tx: Transaction, person_id: str, claims: Mapping[str, Any]) -> None:
    """Keep the address of these verified claims; one that is no longer called verified is forgotten."""
    claimed = claims.get("email") if claims.get("email_verified") is True else None
    found = address(claimed) if isinstance(claimed, str) else ""
    held = insert(NoticeAddress).values(person_id=person_id, address=found)
    changed = NoticeAddress.address != held.excluded.address
    update = {"address": held.excluded.address}
    tx.execute(held.on_conflict_do_update(index_elements=[NoticeAddress.person_id], set_=update, where=changed))


def deliverable_addresses(tx: Transaction, people: Sequence[str]) -> Sequence[NoticeAddress]:
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
