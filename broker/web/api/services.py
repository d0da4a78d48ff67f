"""`/services`: programs with a client secret."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from broker.base.database import now as clock
from broker.models import Proposal, Service
from broker.registry import services
from broker.web import proposed
from broker.web.api.common import CallerNow, Ended, FreshCaller, Id, Name, PartsNow, Reason, WindowNow
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/services", tags=["services"])


class NewService(Strict):
    """A service to make."""

    name: Name
    vendor: Annotated[Id | None, Field(description="The vendor it belongs to; null: the organisation.")] = None


class ServiceShown(Shown):
    """A service."""

    id: str
    name: str
    vendor: str | None
    status: Literal["active", "suspended"]


class ServiceSecret(ServiceShown):
    """A service with its secret, shown this once."""

    client_id: str
    client_secret: str


class Services(BaseModel):
    """A page of services."""

    items: list[ServiceShown]
    next_cursor: str | None


@router.get("", operation_id="list_services")
def list_services(parts: PartsNow, caller: CallerNow, window: WindowNow) -> Services:
    """The services you see."""
    with parts.database.transaction() as tx:
        found = services.list_services(tx, caller, window)
        return Services(items=[_shown(service) for service in found.items], next_cursor=found.next_cursor)


@router.post("", operation_id="make_service", status_code=201)
def make_service(body: NewService, parts: PartsNow, caller: FreshCaller, response: Response) -> ServiceSecret:
    """Make a service; its client secret is in this answer and nowhere else."""
    response.headers["Cache-Control"] = "no-store"
    with parts.database.transaction() as tx:
        return _with_secret(*services.make_service(tx, caller, body.name, body.vendor, clock(tx)))


@router.post(
    "/{service_id}/rotate-secret",
    operation_id="rotate_service_secret",
    response_model=ServiceSecret,
    responses=proposed.RESPONSES,
)
def rotate_secret(service_id: str, parts: PartsNow, caller: FreshCaller, response: Response) -> Any:
    """Replace the client secret; the old one stops working at once.

    An admin, where the service holds grants or is asked for some, first waits for the owner or a second admin (202).
    Sent again within an hour of their agreeing, it is done.
    """
    response.headers["Cache-Control"] = "no-store"
    with parts.database.transaction() as tx:
        lifetime = proposed.lifetime_of(parts)
        rotated = services.rotate_secret(tx, caller, service_id, clock(tx), lifetime=lifetime)
        return proposed.answer_proposed(rotated) if isinstance(rotated, Proposal) else _with_secret(*rotated)


@router.post("/{service_id}/suspend", operation_id="suspend_service")
def suspend_service(service_id: str, body: Reason, parts: PartsNow, caller: CallerNow) -> Ended:
    """Shut a service out at once."""
    with parts.database.transaction() as tx:
        leases = services.suspend_service(tx, caller, service_id, body.reason, clock(tx))
        return Ended(id=service_id, status="suspended", leases=leases)


@router.post("/{service_id}/resume", operation_id="resume_service")
def resume_service(service_id: str, body: Reason, parts: PartsNow, caller: FreshCaller) -> ServiceShown:
    """Let a suspended service in again; no lease comes back."""
    with parts.database.transaction() as tx:
        return _shown(services.resume_service(tx, caller, service_id, body.reason, clock(tx)))


def _shown(service: Service) -> ServiceShown:
    return ServiceShown.model_validate(
        {"id": service.id, "name": service.name, "vendor": service.vendor_id, "status": service.status}
    )


def _with_secret(service: Service, secret: str) -> ServiceSecret:
    return ServiceSecret(**_shown(service).model_dump(), client_id=service.id, client_secret=secret)
