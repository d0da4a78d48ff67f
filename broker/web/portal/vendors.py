"""Vendors, for admins: the list, adding one, and one of them with its people and what can be done about it."""

from __future__ import annotations

from broker.base.paging import MOST, Window
from broker.identity.permissions import require_admin
from broker.models import VENDOR_STATUSES
from broker.registry import people, vendors
from broker.web.portal.auditing import history
from broker.web.portal.forms import Context, PortalRequest, act, form, page
from broker.web.portal.suspending import resuming


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


act("/vendors/{vendor_id}/activate", vendors.activate_vendor, "reason", rerender=one_vendor)
act("/vendors/{vendor_id}/resume", resuming("vendor"), "reason", rerender=one_vendor)
