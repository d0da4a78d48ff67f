"""`/vendors`: third parties."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter

from broker.models import Vendor
from broker.registry import vendors
from broker.registry.vendors import VENDORS
from broker.suspensions import suspending
from broker.web.api.common import At, Ended, Name, ReasonBody, Shown, Strict, example, verb
from broker.web.api.reading import add_list, add_show
from broker.web.api.suspensions import SuspendBody, Suspended, suspend

router = APIRouter(prefix="/vendors", tags=["vendors"])


class VendorShown(Shown):
    """A vendor."""

    id: str
    name: str
    status: Literal["onboarding", "active", "suspended", "offboarded"]
    created_at: datetime


class VendorBody(Strict):
    """A vendor to add."""

    name: Name

    model_config = example(name="Acme Annotation")


add_list(router, VENDORS, VendorShown, "Vendors, newest first. A vendor's own people see only theirs.")
add_show(router, VENDORS, VendorShown, "One vendor.")


@verb(router, "POST", "", VendorShown, status=201, fresh=True, repeatable=True)
def add_vendor(at: At, body: VendorBody) -> Vendor:
    """Add a vendor, `onboarding`. For admins."""
    return vendors.add_vendor(at.tx, at.caller, body.name, at.now)


@verb(router, "POST", "/{vendor_id}/activate", VendorShown, fresh=True)
def activate_vendor(at: At, vendor_id: str, body: ReasonBody) -> Vendor:
    """Activate an onboarding vendor. For admins."""
    return vendors.activate_vendor(at.tx, at.caller, vendor_id, body.reason, at.now)


@verb(router, "POST", "/{vendor_id}/resume", VendorShown, fresh=True)
def resume_vendor(at: At, vendor_id: str, body: ReasonBody) -> Vendor:
    """Lift a suspension; no session and no lease comes back. For admins."""
    suspending.resume(at.tx, at.caller, "vendor", vendor_id, body.reason, at.now)
    return VENDORS.one(at.tx, at.caller, vendor_id)


@verb(router, "POST", "/{vendor_id}/suspend", Suspended, status=202, fresh=True)
def suspend_vendor(at: At, vendor_id: str, body: SuspendBody) -> Suspended:
    """Stop a vendor at once: new use is refused, every session is out, every lease is ending. For admins."""
    return suspend(at, "vendor", vendor_id, body)


@verb(router, "POST", "/{vendor_id}/offboard", Ended, status=202, fresh=True)
def offboard_vendor(at: At, vendor_id: str, body: ReasonBody) -> Ended:
    """Part from a vendor for good: its grants, offers and open requests end too. For admins."""
    leases = vendors.offboard_vendor(at.tx, at.caller, vendor_id, body.reason, at.now)
    return Ended(id=vendor_id, status="offboarded", leases=leases)
