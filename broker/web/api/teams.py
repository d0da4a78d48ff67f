"""`/teams`: sets of people of one vendor."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from broker.models import Proposal, Team
from broker.registry import teams
from broker.registry.teams import TEAMS
from broker.web.api.common import Id, Name, Shown, Strict
from broker.web.api.reading import add_list, add_show
from broker.web.api.verbs import At, Proposed, verb

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
