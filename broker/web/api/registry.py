"""`/teams`: sets of people of one vendor. `/services`: programs with a client secret."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from broker.models import Proposal, Service, Team
from broker.registry import services, teams
from broker.registry.services import SERVICES
from broker.registry.teams import TEAMS
from broker.web.api.common import At, Ended, Id, Name, Proposed, ReasonBody, Shown, Strict, VendorId, verb
from broker.web.api.reading import add_list, add_show

router = APIRouter(prefix="/teams", tags=["teams"])


class TeamShown(Shown):
    """A team; `vendor` is the vendor's id."""

    id: str
    vendor: Annotated[str, Field(validation_alias="vendor_id")]
    name: str
    created_at: datetime


class Member(Shown):
    """A person in a team."""

    id: str
    name: str
    status: str


class TeamWithMembers(TeamShown):
    """A team and who is in it."""

    members: list[Member]


class TeamBody(Strict):
    """A team to make; `vendor` may be left out by a vendor's lead."""

    name: Name
    vendor: Id | None = None


class LeasesEnding(BaseModel):
    """Leases that rested on the membership are ending."""

    leases: list[str]


add_list(router, TEAMS, TeamShown, "Teams, newest first.")
add_show(
    router,
    TEAMS,
    TeamWithMembers,
    "One team and its people.",
    render=lambda at, team: TeamWithMembers.of(team, members=teams.members_of(at.tx, team)),
)


@verb(router, "POST", "", TeamShown, status=201, repeatable=True)
def add_team(at: At, body: TeamBody) -> Team:
    """Make an empty team. For admins and the vendor's lead."""
    return teams.add_team(at.tx, at.caller, body.vendor or at.caller.vendor_id or "", body.name, at.now)


@verb(router, "PUT", "/{team_id}/members/{person_id}", status=204, fresh=True, proposes=Proposed)
def add_team_member(at: At, team_id: str, person_id: str) -> Proposal | None:
    """Put a person into a team. For admins and the vendor's lead.

    While the team holds a grant, the owner of what was granted or another admin must agree (202).
    """
    return teams.add_member(at.tx, at.caller, team_id, person_id, at.now, lifetime=at.lifetime)


@verb(router, "DELETE", "/{team_id}/members/{person_id}", LeasesEnding)
def remove_team_member(at: At, team_id: str, person_id: str) -> LeasesEnding:
    """Remove a person from a team; leases that need it end. For admins, the lead, and the person."""
    return LeasesEnding(leases=teams.remove_member(at.tx, at.caller, team_id, person_id, at.now))


service_router = APIRouter(prefix="/services", tags=["services"])


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


add_list(service_router, SERVICES, ServiceShown, "The services you see.")


@verb(service_router, "POST", "", ServiceSecret, status=201, fresh=True, no_store=True)
def make_service(at: At, body: NewService) -> ServiceSecret:
    """Make a service; its client secret is in this answer and nowhere else."""
    return _with_secret(*services.make_service(at.tx, at.caller, body.name, body.vendor, at.now))


@verb(
    service_router, "POST", "/{service_id}/rotate-secret", ServiceSecret, fresh=True, no_store=True, proposes=Proposed
)
def rotate_service_secret(at: At, service_id: str) -> ServiceSecret | Proposal:
    """Replace the client secret; the old one stops working at once.

    An admin, where the service holds grants or is asked for some, first waits for the owner or a second admin (202).
    Sent again within an hour of their agreeing, it is done.
    """
    rotated = services.rotate_secret(at.tx, at.caller, service_id, at.now, lifetime=at.lifetime)
    return rotated if isinstance(rotated, Proposal) else _with_secret(*rotated)


@verb(service_router, "POST", "/{service_id}/suspend", Ended)
def suspend_service(at: At, service_id: str, body: ReasonBody) -> Ended:
    """Shut a service out at once."""
    leases = services.suspend_service(at.tx, at.caller, service_id, body.reason, at.now)
    return Ended(id=service_id, status="suspended", leases=leases)


@verb(service_router, "POST", "/{service_id}/resume", ServiceShown, fresh=True)
def resume_service(at: At, service_id: str, body: ReasonBody) -> Service:
    """Let a suspended service in again; no lease comes back."""
    return services.resume_service(at.tx, at.caller, service_id, body.reason, at.now)


def _with_secret(service: Service, secret: str) -> ServiceSecret:
    return ServiceSecret.of(service, client_id=service.id, client_secret=secret)
