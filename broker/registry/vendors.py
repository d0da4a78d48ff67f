"""Vendors: taking one in, and every change of its status. Ending itself is `broker.revocation.ending`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from sqlalchemy import exists, func, select, update

from broker.base import words
from broker.base.database import Transaction, one_at_a_time
from broker.base.errors import Conflict
from broker.base.ids import new_id
from broker.base.paging import MOST
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Menu, Noun, Search
from broker.identity.permissions import held_by_vendor, require_admin, vendors_seen
from broker.log import audit
from broker.models import VENDOR_STATUSES, Grant, Offer, Person, Request, SignInSource, Vendor
from broker.revocation import ending

VENDORS = Noun(
    "vendor",
    "vendors",
    "vn",
    Vendor,
    about="Third parties.",
    menu=Menu("Vendors", lambda caller: caller.is_admin),
    display=Display(
        columns="id!, name, status",
        none="No vendors yet.",
        details="id, name, status, since=created_at@",
    ),
    seen=vendors_seen,
    called=Vendor.name,
    filters=(Filter("status", Literal["onboarding", "active", "suspended", "offboarded"], Vendor.status),),
    search=Search(
        (Vendor.name,),
        lambda found: (found.id, found.name, found.status),
        by_name=lambda caller: caller.is_admin,
        by_id=lambda caller: caller.is_admin,
    ),
    plain=("activated", "added", "offboarded", "resumed", "suspended"),
    events={"vendor.made": "{who} added the vendor {whom}."},
)
vendor = VENDORS.one


def choices(tx: Transaction, statuses: Collection[str] = VENDOR_STATUSES) -> list[tuple[str, str]]:
    """Vendors of these statuses to choose from, id and name."""
    query = select(Vendor.id, Vendor.name).where(Vendor.status.in_(statuses)).order_by(Vendor.name)
    return [(row.id, row.name) for row in tx.execute(query)]


def without_source(tx: Transaction, vendor_id: str | None = None) -> list[tuple[str, str]]:
    """The vendors nobody can be invited for, id and name: no sign-in source of theirs is active."""
    bound = exists().where(SignInSource.vendor_id == Vendor.id, SignInSource.status == "active")
    query = select(Vendor.id, Vendor.name).where(Vendor.status != "offboarded", ~bound).order_by(Vendor.name)
    query = query.where(Vendor.id == vendor_id) if vendor_id else query
    return [(row.id, row.name) for row in tx.execute(query.limit(MOST))]


def add_vendor(tx: Transaction, caller: Caller, name: str, now: datetime) -> Vendor:
    """Take in a vendor, `onboarding`: nobody of it gets a credential until it is activated.

    Raises:
        Conflict: a vendor of that name, whatever its letters' case, is there already.
    """
    require_admin(caller)
    name = words.name(name, "/name")
    # Two vendors whose names differ by case only would be mistaken for one another.
    one_at_a_time(tx, "vendor.names")
    if tx.execute(select(Vendor.id).where(func.lower(Vendor.name) == name.lower())).first():
        raise Conflict("A vendor with that name already exists.", advice="Use its entry, or another name.")
    made = Vendor(id=new_id("vn"), name=name, status="onboarding", created_at=now)
    tx.add(made)
    tx.flush()
    audit.record(tx, "vendor.added", actor=caller.subject, subject=made.id, now=now, personal={"name": name})
    return made


def activate_vendor(tx: Transaction, caller: Caller, vendor_id: str, reason: str, now: datetime) -> Vendor:
    """Let an onboarding vendor begin."""
    return _reopen(tx, caller, vendor_id, reason, now, before="onboarding", kind="vendor.activated")


def resume_vendor(tx: Transaction, caller: Caller, vendor_id: str, reason: str, now: datetime) -> Vendor:
    """Lift a suspension. No session and no lease comes back: everybody signs in and asks anew."""
    return _reopen(tx, caller, vendor_id, reason, now, before="suspended", kind="vendor.resumed")


def suspend_vendor(tx: Transaction, caller: Caller, vendor_id: str, reason: str, now: datetime) -> list[str]:
    """Stop a vendor at once; returns the ids of the leases now ending."""
    require_admin(caller)
    vendor(tx, caller, vendor_id)
    return ending.suspend_vendor(tx, vendor_id, caller, words.prose(reason, "/reason"), now)


def offboard_vendor(tx: Transaction, caller: Caller, vendor_id: str, reason: str, now: datetime) -> list[str]:
    """Part from a vendor for good: grants, offers and open requests end too. Returns the leases now ending."""
    require_admin(caller)
    vendor(tx, caller, vendor_id)
    reason = words.prose(reason, "/reason")
    ended = ending.suspend_vendor(tx, vendor_id, caller, reason, now, status="offboarded")
    _end_rights(tx, caller, vendor_id, reason, now)
    return ended


def _reopen(
    tx: Transaction, caller: Caller, vendor_id: str, reason: str, now: datetime, *, before: str, kind: str
) -> Vendor:
    require_admin(caller)
    found = vendor(tx, caller, vendor_id)
    return VENDORS.reopen(tx, caller, found, kind, words.prose(reason, "/reason"), now, before=before)


def _end_rights(tx: Transaction, caller: Caller, vendor_id: str, reason: str, now: datetime) -> None:
    people = select(Person.id).where(Person.vendor_id == vendor_id)
    held = update(Grant).where(held_by_vendor(Grant, vendor_id), Grant.revoked_at.is_(None))
    revoked = held.values(revoked_at=now, revoked_by=caller.id, revoke_reason=reason)
    grants = tx.scalars(revoked.returning(Grant.id)).all()
    asked = update(Request).where(Request.person_id.in_(people), Request.state == "pending")
    refused = asked.values(state="refused", decided_at=now, decided_by=caller.id, decision_reason=reason)
    requests = tx.scalars(refused.returning(Request.id)).all()
    tx.execute(update(Offer).where(Offer.vendor_id == vendor_id, Offer.ended_at.is_(None)).values(ended_at=now))
    for kind, ids in (("grant.revoked", grants), ("request.refused", requests)):
        for id_ in ids:
            details = {"cause": "vendor_offboarded"}
            audit.record(tx, kind, actor=caller.subject, subject=id_, now=now, details=details)
