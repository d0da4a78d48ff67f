"""`/services`: programs with a client secret."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from broker.models import Proposal, Service
from broker.registry import services
from broker.registry.services import SERVICES
from broker.web.api.common import Ended, Id, Name, ReasonBody, Shown, Strict, VendorId
from broker.web.api.reading import add_list
from broker.web.api.verbs import At, Proposed, verb

router = APIRouter(prefix="/services", tags=["services"])


class NewService(Strict):
    """A service to make."""

    name: Name
    vendor: Annotated[Id | None, Field(description="The vendor it belongs to; null: the organisation.")] = None


class ServiceShown(Shown):
    """A service."""

    id: str
    name: str
    vendor: VendorId
    status: Literal["active", "suspended"]


class ServiceSecret(ServiceShown):
    """A service with its secret, shown this once."""

    client_id: str
    client_secret: str


add_list(router, SERVICES, ServiceShown, "The services you see.")


@verb(router, "POST", "", ServiceSecret, status=201, fresh=True, no_store=True)
def make_service(at: At, body: NewService) -> ServiceSecret:
    """Make a service; its client secret is in this answer and nowhere else."""
    return _with_secret(*services.make_service(at.tx, at.caller, body.name, body.vendor, at.now))


@verb(router, "POST", "/{service_id}/rotate-secret", ServiceSecret, fresh=True, no_store=True, proposes=Proposed)
def rotate_service_secret(at: At, service_id: str) -> ServiceSecret | Proposal:
    """Replace the client secret; the old one stops working at once.

    An admin, where the service holds grants or is asked for some, first waits for the owner or a second admin (202).
    Sent again within an hour of their agreeing, it is done.
    """
    rotated = services.rotate_secret(at.tx, at.caller, service_id, at.now, lifetime=at.lifetime)
    return rotated if isinstance(rotated, Proposal) else _with_secret(*rotated)


@verb(router, "POST", "/{service_id}/suspend", Ended)
def suspend_service(at: At, service_id: str, body: ReasonBody) -> Ended:
    """Shut a service out at once."""
    leases = services.suspend_service(at.tx, at.caller, service_id, body.reason, at.now)
    return Ended(id=service_id, status="suspended", leases=leases)


@verb(router, "POST", "/{service_id}/resume", ServiceShown, fresh=True)
def resume_service(at: At, service_id: str, body: ReasonBody) -> Service:
    """Let a suspended service in again; no lease comes back."""
    return services.resume_service(at.tx, at.caller, service_id, body.reason, at.now)


def _with_secret(service: Service, secret: str) -> ServiceSecret:
    return ServiceSecret.of(service, client_id=service.id, client_secret=secret)
