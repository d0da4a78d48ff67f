"""Vendors, for admins: the list, adding one, and one of them with its people and what can be done about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from broker.base.database import Transaction
from broker.base.errors import NotFound
from broker.base.paging import MOST, Window
from broker.identity.caller import Caller
from broker.identity.permissions import require_admin
from broker.models import VENDOR_STATUSES
from broker.registry import people, vendors
from broker.suspensions.suspending import resume
from broker.web.portal.auditing import history
from broker.web.portal.forms import Context, PortalRequest, form, page

ACTS: Mapping[str, Callable[[Transaction, Caller, str, str, datetime], object]] = {
    "activate": vendors.activate_vendor,
    "resume": lambda tx, caller, vendor_id, reason, now: resume(tx, caller, "vendor", vendor_id, reason, now),
}


@page("/vendors", template="admin/vendors.html")
def all_vendors(req: PortalRequest) -> Context:
    """The vendors."""
    require_admin(req.caller)
    status = req.asked("status") if req.asked("status") in VENDOR_STATUSES else None
    return {"page": vendors.VENDORS.page(req.tx, req.caller, req.window(), status=status), "chosen": status or ""}


@page("/vendors/new", template="owner/new_vendor.html")
def new_vendor(req: PortalRequest) -> Context:
    """The form that adds a vendor."""
    require_admin(req.caller)
    return {}


@form("/vendors/new", rerender=new_vendor)
def add_vendor(req: PortalRequest) -> str:
    """Add a vendor, and go on to its page."""
    return f"/vendors/{vendors.add_vendor(req.tx, req.caller, req.field('name'), req.now).id}"


@page("/vendors/{vendor_id}", template="admin/vendor.html")
def one_vendor(req: PortalRequest, vendor_id: str) -> Context:
    """One vendor, its people, and what can be done about it."""
    require_admin(req.caller)
    return {
        "vendor": vendors.vendor(req.tx, req.caller, vendor_id),
        "people": people.PEOPLE.page(req.tx, req.caller, Window(limit=MOST), vendor=vendor_id).items,
        "without_source": bool(vendors.without_source(req.tx, vendor_id)),
        "history": history(req, "vendor", vendor_id),
    }


@form("/vendors/{vendor_id}/{what}", rerender=one_vendor)
def change_vendor(req: PortalRequest, vendor_id: str, what: str) -> str:
    """Activate or resume a vendor."""
    if what not in ACTS:
        raise NotFound("There is no such action here.")
    ACTS[what](req.tx, req.caller, vendor_id, req.field("reason"), req.now)
    return f"/vendors/{vendor_id}"
