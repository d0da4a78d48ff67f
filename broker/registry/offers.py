"""Offers: showing a dataset to a vendor. What is not offered does not exist for the vendor's people."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.errors import Conflict, Forbidden
from broker.base.ids import new_id
from broker.identity.caller import Caller
from broker.log import audit
from broker.models import Dataset, Offer
from broker.registry.datasets import dataset, require_owner_or_admin
from broker.registry.vendors import vendor
from broker.revocation import ending


def offers_of(tx: Transaction, caller: Caller, found: Dataset) -> list[Offer]:
    """The live offers of a dataset the caller sees; a vendor's people see none but their own vendor's.

    Raises:
        Forbidden: a service of the organisation.
    """
    query = select(Offer).where(Offer.dataset_id == found.id, Offer.ended_at.is_(None)).order_by(Offer.id)
    if caller.vendor_id is not None:
        query = query.where(Offer.vendor_id == caller.vendor_id)
    elif caller.kind != "person":
        raise Forbidden("Services cannot see offers.")
    return list(tx.scalars(query))


def make_offer(tx: Transaction, caller: Caller, slug: str, vendor_id: str, now: datetime) -> Offer:
    """Show a dataset to a vendor.

    Raises:
        Conflict: it is offered already, is retired, or the vendor is offboarded.
    """
    found = dataset(tx, caller, slug)
    require_owner_or_admin(caller, found)
    to = vendor(tx, caller, vendor_id)
    if to.status == "offboarded" or found.status == "retired":
        raise Conflict("A retired dataset cannot be offered, nor can a dataset be offered to an offboarded vendor.")
    made = tx.scalars(
        insert(Offer)
        .values(id=new_id("of"), dataset_id=found.id, vendor_id=to.id, made_by=caller.id, made_at=now)
        .on_conflict_do_nothing(index_elements=["dataset_id", "vendor_id"], index_where=text("ended_at IS NULL"))
        .returning(Offer)
    ).one_or_none()
    if made is None:
        raise Conflict("This dataset is already offered to that vendor.")
    details = {"dataset": found.id, "vendor": to.id}
    audit.record(tx, "offer.made", actor=caller.subject, subject=made.id, now=now, details=details)
    return made


def withdraw_offer(tx: Transaction, caller: Caller, slug: str, vendor_id: str, now: datetime) -> list[str]:
    """Take a dataset out of a vendor's sight; returns the ids of the leases now ending."""
    found = dataset(tx, caller, slug)
    require_owner_or_admin(caller, found)
    return ending.withdraw_offer(tx, found.id, vendor(tx, caller, vendor_id).id, caller, now)
