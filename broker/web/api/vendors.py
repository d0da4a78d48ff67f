"""`/vendors`: third parties."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.models import Vendor
from broker.registry import vendors
from broker.suspensions import suspending
from broker.web.api.common import CallerNow, Ended, FreshCaller, Name, PartsNow, Reason, WindowNow
from broker.web.api.suspensions import SuspendBody, Suspended
from broker.web.idempotency import KeyHeader, answer, once
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/vendors", tags=["vendors"])
Status = Literal["onboarding", "active", "suspended", "offboarded"]


class VendorShown(Shown):
    """A vendor."""

    id: str
    name: str
    status: Status
    created_at: datetime


class Vendors(BaseModel):
    """A page of vendors."""

    items: list[VendorShown]
    next_cursor: str | None


class VendorBody(Strict):
    """A vendor to take in."""

    name: Name

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Acme Annotation"}]})


@router.get("", operation_id="list_vendors")
def list_vendors(
    caller: CallerNow, parts: PartsNow, window: WindowNow, status: Annotated[Status | None, Query()] = None
) -> Vendors:
    """Vendors, newest first. A vendor's own people see only theirs."""
    with parts.database.transaction() as tx:
        page = vendors.list_vendors(tx, caller, window, status=status)
    return Vendors(items=_shown(page.items), next_cursor=page.next_cursor)


@router.post("", operation_id="add_vendor", status_code=201, response_model=VendorShown)
def add_vendor(
    request: Request, body: VendorBody, caller: FreshCaller, parts: PartsNow, key: KeyHeader = None
) -> Response:
    """Take in a vendor, `onboarding`. For admins."""
    return answer(
        parts,
        once(request, caller, body, key),
        lambda tx, now: VendorShown.model_validate(vendors.add_vendor(tx, caller, body.name, now)),
    )


@router.get("/{vendor_id}", operation_id="show_vendor")
def show_vendor(vendor_id: str, caller: CallerNow, parts: PartsNow) -> VendorShown:
    """One vendor."""
    with parts.database.transaction() as tx:
        return VendorShown.model_validate(vendors.vendor(tx, caller, vendor_id))


@router.post("/{vendor_id}/activate", operation_id="activate_vendor")
def activate_vendor(vendor_id: str, body: Reason, caller: FreshCaller, parts: PartsNow) -> VendorShown:
    """Let an onboarding vendor begin. For admins."""
    with parts.database.transaction() as tx:
        return VendorShown.model_validate(vendors.activate_vendor(tx, caller, vendor_id, body.reason, clock(tx)))


@router.post("/{vendor_id}/resume", operation_id="resume_vendor")
def resume_vendor(vendor_id: str, body: Reason, caller: FreshCaller, parts: PartsNow) -> VendorShown:
    """Lift a suspension; no session and no lease comes back. For admins."""
    with parts.database.transaction() as tx:
        suspending.resume(tx, caller, "vendor", vendor_id, body.reason, clock(tx))
        return VendorShown.model_validate(vendors.vendor(tx, caller, vendor_id))


@router.post("/{vendor_id}/suspend", operation_id="suspend_vendor", status_code=202)
def suspend_vendor(vendor_id: str, body: SuspendBody, caller: FreshCaller, parts: PartsNow) -> Suspended:
    """Stop a vendor at once: new use is refused, every session is out, every lease is ending. For admins."""
    expected = body.expected.model_dump() if body.expected else None
    with parts.database.transaction() as tx:
        begun, leases = suspending.suspend(
            tx, caller, "vendor", vendor_id, body.reason, clock(tx), message=body.message, expected=expected
        )
    return Suspended(id=begun.target_id, status="suspended", leases=leases, suspension=begun.id)


@router.post("/{vendor_id}/offboard", operation_id="offboard_vendor", status_code=202)
def offboard_vendor(vendor_id: str, body: Reason, caller: FreshCaller, parts: PartsNow) -> Ended:
    """Part from a vendor for good: its grants, offers and open requests end too. For admins."""
    with parts.database.transaction() as tx:
        leases = vendors.offboard_vendor(tx, caller, vendor_id, body.reason, clock(tx))
    return Ended(id=vendor_id, status="offboarded", leases=leases)


def _shown(items: Sequence[Vendor]) -> list[VendorShown]:
    return [VendorShown.model_validate(item) for item in items]
