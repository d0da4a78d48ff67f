"""Teams of a vendor's people, and services: programs with a secret that is shown once."""

from __future__ import annotations

from starlette.responses import Response

from broker.identity.permissions import is_lead, require_looks_after_people
from broker.models import Proposal, Service
from broker.registry import people, services, teams, vendors
from broker.registry.naming import names_of
from broker.web.api.common import lifetime_of
from broker.web.portal.forms import Context, PortalRequest, act, form, page
from broker.web.portal.pages import render
from broker.web.portal.proposals import waiting_acts


@page("/teams", template="registry/teams.html")
def all_teams(req: PortalRequest) -> Context:
    """Teams, newest first."""
    require_looks_after_people(req.caller)
    vendor = req.asked("vendor")
    found, trouble = req.listed(teams.TEAMS, vendor=vendor or None)
    return {
        "page": found,
        "trouble": trouble,
        "vendors": names_of(req.tx, {team.vendor_id for team in found.items}),
        "vendor": vendor,
    }


@page("/teams/new", template="registry/new_team.html")
def new_team(req: PortalRequest) -> Context:
    """The form that makes a team."""
    require_looks_after_people(req.caller)
    # A lead's own vendor is understood.
    return {"vendors": vendors.choices(req.tx) if req.caller.is_admin else [], "filled": req.prefilled("vendor")}


@form("/teams/new", rerender=new_team)
def add_team(req: PortalRequest) -> str:
    """Make a team, and go on to put people into it."""
    vendor = req.field("vendor") or req.caller.vendor_id or ""
    return f"/teams/{teams.add_team(req.tx, req.caller, vendor, req.field('name'), req.now).id}"


@page("/teams/{team_id}", template="registry/team.html")
def one_team(req: PortalRequest, team_id: str) -> Context:
    """One team, and who is in it."""
    team = teams.team(req.tx, req.caller, team_id)
    members = teams.members_of(req.tx, team)
    inside = {member.id for member in members}
    changes = req.caller.is_admin or is_lead(req.caller, team.vendor_id)
    staff = people.choices(req.tx, [team.vendor_id]).items() if changes else ()
    return {
        "team": team,
        "vendor": vendors.vendor(req.tx, req.caller, team.vendor_id),
        "members": members,
        "others": [(id_, called) for id_, called in staff if id_ not in inside],
        "may_change": changes,
        **waiting_acts(req, [team.id] if changes else []),
    }


@form("/teams/{team_id}/members", rerender=one_team)
def change_members(req: PortalRequest, team_id: str) -> str:
    """Put somebody into a team, or take them out; what rests on it then ends."""
    if leaving := req.field("remove"):
        teams.remove_member(req.tx, req.caller, team_id, leaving, req.now)
        return f"/teams/{team_id}"
    joining, lifetime = req.field("person"), lifetime_of(req.parts)
    waiting = teams.add_member(req.tx, req.caller, team_id, joining, req.now, lifetime=lifetime)
    # A lead sees no proposals: the team's page says that it waits.
    return f"/proposals/{waiting.id}" if waiting is not None and req.viewer.inside else f"/teams/{team_id}"


@page("/services", template="registry/services.html")
def all_services(req: PortalRequest) -> Context:
    """Services, newest first, and the form that makes one."""
    require_looks_after_people(req.caller, auditors=True)
    found = services.SERVICES.page(req.tx, req.caller, req.window())
    return {
        "page": found,
        "names": names_of(req.tx, {item.vendor_id for item in found.items if item.vendor_id}),
        "vendors": vendors.choices(req.tx) if req.caller.is_admin else [],
        **waiting_acts(req, [item.id for item in found.items] if req.viewer.inside else []),
    }


@form("/services", rerender=all_services)
def make_service(req: PortalRequest) -> Response:
    """Make a service; its secret is on the page that answers, and nowhere else."""
    vendor = req.field("vendor") or req.caller.vendor_id
    return _secret_page(req, *services.make_service(req.tx, req.caller, req.field("name"), vendor, req.now))


@form("/services/{service_id}/rotate", rerender=all_services)
def rotate_secret(req: PortalRequest, service_id: str) -> str | Response:
    """Replace a service's secret, or propose it."""
    rotated = services.rotate_secret(req.tx, req.caller, service_id, req.now, lifetime=lifetime_of(req.parts))
    return f"/proposals/{rotated.id}" if isinstance(rotated, Proposal) else _secret_page(req, *rotated)


for _what, _do in (("suspend", services.suspend_service), ("resume", services.resume_service)):
    act(f"/services/{{service_id}}/{_what}", _do, "reason", rerender=all_services, then="/services")


def _secret_page(req: PortalRequest, made: Service, secret: str) -> Response:
    return render("registry/service_secret.html", viewer=req.viewer, service=made, secret=secret)
