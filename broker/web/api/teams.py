"""`/teams`: sets of people of one vendor."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.models import Person, Team
from broker.registry import teams
from broker.registry.naming import vendor_meant
from broker.web import proposed
from broker.web.api.common import CallerNow, FreshCaller, Id, Name, PartsNow, VendorFilter, WindowNow
from broker.web.idempotency import KeyHeader, answer, once
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/teams", tags=["teams"])


class TeamShown(Shown):
    """A team; `vendor` is the vendor's id."""

    id: str
    vendor: str
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


class Teams(BaseModel):
    """A page of teams."""

    items: list[TeamShown]
    next_cursor: str | None


class TeamBody(Strict):
    """A team to make; `vendor` may be left out by a vendor's lead."""

    name: Name
    vendor: Id | None = None


class LeasesEnding(BaseModel):
    """Leases that rested on the membership are ending."""

    leases: list[str]


@router.get("", operation_id="list_teams")
def list_teams(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    vendor: VendorFilter = None,
) -> Teams:
    """Teams, newest first."""
    with parts.database.transaction() as tx:
        page = teams.list_teams(tx, caller, window, vendor_id=vendor_meant(tx, caller, vendor or "", "query/vendor"))
    return Teams(items=[_shown(item) for item in page.items], next_cursor=page.next_cursor)


@router.post("", operation_id="add_team", status_code=201, response_model=TeamShown)
def add_team(request: Request, body: TeamBody, caller: CallerNow, parts: PartsNow, key: KeyHeader = None) -> Response:
    """Make an empty team. For admins and the vendor's lead."""
    vendor = body.vendor or caller.vendor_id or ""
    return answer(
        parts,
        once(request, caller, body, key),
        lambda tx, now: _shown(teams.add_team(tx, caller, vendor, body.name, now)),
    )


@router.get("/{team_id}", operation_id="show_team")
def show_team(team_id: str, caller: CallerNow, parts: PartsNow) -> TeamWithMembers:
    """One team and its people."""
    with parts.database.transaction() as tx:
        found = teams.team(tx, caller, team_id)
        return _with_members(found, teams.members_of(tx, found))


@router.put(
    "/{team_id}/members/{person_id}",
    operation_id="add_team_member",
    status_code=204,
    response_model=None,
    responses=proposed.RESPONSES,
)
def add_member(team_id: str, person_id: str, caller: FreshCaller, parts: PartsNow) -> Response:
    """Put a person into a team. For admins and the vendor's lead.

    While the team holds a grant, the owner of what was granted or another admin must agree (202).
    """
    with parts.database.transaction() as tx:
        lifetime = proposed.lifetime_of(parts)
        waiting = teams.add_member(tx, caller, team_id, person_id, clock(tx), lifetime=lifetime)
        return proposed.answer_proposed(waiting) if waiting is not None else Response(status_code=204)


@router.delete("/{team_id}/members/{person_id}", operation_id="remove_team_member")
def remove_member(team_id: str, person_id: str, caller: CallerNow, parts: PartsNow) -> LeasesEnding:
    """Take a person out of a team; leases that rest on it end. For admins, the lead, and the person."""
    with parts.database.transaction() as tx:
        return LeasesEnding(leases=teams.remove_member(tx, caller, team_id, person_id, clock(tx)))


def _shown(item: Team) -> TeamShown:
    return TeamShown(id=item.id, vendor=item.vendor_id, name=item.name, created_at=item.created_at)


def _with_members(item: Team, people: list[Person]) -> TeamWithMembers:
    members = [Member.model_validate(person) for person in people]
    return TeamWithMembers(
        id=item.id, vendor=item.vendor_id, name=item.name, created_at=item.created_at, members=members
    )
