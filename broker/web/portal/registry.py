"""Teams of a vendor's people, and services: programs with a secret that is shown once."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Forbidden, Invalid
from broker.base.paging import Window
from broker.identity.caller import Caller
from broker.identity.permissions import is_lead, require_admin
from broker.models import Proposal, Service, Vendor
from broker.registry import people, services, teams, vendors
from broker.registry.naming import each_told_apart
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.proposed_acts import waiting_acts
from broker.web.portal.viewer import MemberNow, Sent, Viewer
from broker.web.proposed import lifetime_of

router = APIRouter()
_MOST_STAFF = 500


@router.get("/teams")
def all_teams(viewer: MemberNow, cursor: str | None = None, vendor: str = "") -> HTMLResponse:
    """Teams, newest first."""
    _looks_after_people(viewer.caller)
    with viewer.parts.database.transaction() as tx:
        page = teams.TEAMS.page(tx, viewer.caller, Window(cursor), vendor=vendor or None)
        names = _vendor_names(tx, [team.vendor_id for team in page.items])
    return render("registry/teams.html", viewer=viewer, page=page, vendors=names, vendor=vendor)


@router.get("/teams/new")
def new_team(viewer: MemberNow, vendor: str = "") -> HTMLResponse:
    """The form that makes a team."""
    return _new_team(Setback(viewer), {"vendor": vendor})


@router.post("/teams/new")
def add_team(viewer: MemberNow, sent: Sent) -> Response:
    """Make a team, and go on to put people into it."""

    def do(viewer: Viewer) -> Response:
        vendor = sent.get("vendor") or viewer.caller.vendor_id or ""
        with viewer.parts.database.transaction() as tx:
            made = teams.add_team(tx, viewer.caller, vendor, sent.get("name", ""), clock(tx))
        return go(f"/teams/{made.id}")

    return act(viewer, sent, do, lambda back: _new_team(back, sent), needs=fresh)


@router.get("/teams/{team_id}")
def one_team(team_id: str, viewer: MemberNow) -> HTMLResponse:
    """One team, and who is in it."""
    return _team_page(Setback(viewer), team_id, {})


@router.post("/teams/{team_id}/members")
def change_members(team_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Put somebody into a team, or take them out; what rests on it then ends."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            if leaving := sent.get("remove"):
                teams.remove_member(tx, viewer.caller, team_id, leaving, clock(tx))
            else:
                lifetime = lifetime_of(viewer.parts)
                waiting = teams.add_member(
                    tx, viewer.caller, team_id, sent.get("person", ""), clock(tx), lifetime=lifetime
                )
                if waiting is not None:
                    # A lead sees no proposals: its own page says that it waits.
                    return go(f"/proposals/{waiting.id}" if viewer.inside else f"/teams/{team_id}")
        return go(f"/teams/{team_id}")

    return act(viewer, sent, do, lambda back: _team_page(back, team_id, sent), needs=fresh)


@router.get("/services")
def all_services(viewer: MemberNow, cursor: str | None = None) -> HTMLResponse:
    """Services, newest first, and the form that makes one."""
    return _services_page(Setback(viewer), cursor, {})


@router.post("/services")
def make_service(viewer: MemberNow, sent: Sent) -> Response:
    """Make a service; its secret is on the page that answers, and nowhere else."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            vendor = sent.get("vendor") or viewer.caller.vendor_id
            made, secret = services.make_service(tx, viewer.caller, sent.get("name", ""), vendor, clock(tx))
        return _secret_page(viewer, made, secret)

    return act(viewer, sent, do, lambda back: _services_page(back, None, sent), needs=fresh)


@router.post("/services/{service_id}/{what}")
def change_service(service_id: str, what: str, viewer: MemberNow, sent: Sent) -> Response:
    """Replace a service's secret, shut it out, or let it in again."""

    def do(viewer: Viewer) -> Response:
        reason = sent.get("reason", "")
        with viewer.parts.database.transaction() as tx:
            if what == "rotate":
                lifetime = lifetime_of(viewer.parts)
                rotated = services.rotate_secret(tx, viewer.caller, service_id, clock(tx), lifetime=lifetime)
                if isinstance(rotated, Proposal):
                    return go(f"/proposals/{rotated.id}")
                return _secret_page(viewer, *rotated)
            if what == "suspend":
                services.suspend_service(tx, viewer.caller, service_id, reason, clock(tx))
            elif what == "resume":
                services.resume_service(tx, viewer.caller, service_id, reason, clock(tx))
            else:
                raise Invalid("There is no such action here.")
        return go("/services")

    filled = {**sent, "what": what, "service": service_id}
    return act(viewer, sent, do, lambda back: _services_page(back, None, filled), needs=fresh)


def _new_team(setback: Setback, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    _looks_after_people(viewer.caller)
    with viewer.parts.database.transaction() as tx:
        choices = _vendor_choices(tx, viewer.caller)
    return _form_page("registry/new_team.html", setback, filled=filled, vendors=choices)


def _team_page(setback: Setback, team_id: str, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        team = teams.team(tx, viewer.caller, team_id)
        members = teams.members_of(tx, team)
        inside = {member.id for member in members}
        changes = viewer.caller.is_admin or is_lead(viewer.caller, team.vendor_id)
        staff = people.PEOPLE.page(tx, viewer.caller, Window(limit=_MOST_STAFF), vendor=team.vendor_id)
        others = [item for item in each_told_apart(staff.items).items() if item[0] not in inside]
        vendor = tx.get_one(Vendor, team.vendor_id)
        waiting = waiting_acts(tx, viewer, [team.id]) if changes else {"proposed": []}
    shown = {**waiting, "team": team, "vendor": vendor, "members": members, "others": others if changes else []}
    return _form_page("registry/team.html", setback, filled=filled, may_change=changes, **shown)


def _services_page(setback: Setback, cursor: str | None, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    _looks_after_people(viewer.caller, auditors=True)
    with viewer.parts.database.transaction() as tx:
        page = services.SERVICES.page(tx, viewer.caller, Window(cursor))
        names = _vendor_names(tx, [item.vendor_id for item in page.items if item.vendor_id])
        choices = _vendor_choices(tx, viewer.caller)
        waiting = waiting_acts(tx, viewer, [item.id for item in page.items]) if viewer.inside else {"proposed": []}
    shown = {**waiting, "page": page, "names": names, "vendors": choices, "filled": filled}
    return _form_page("registry/services.html", setback, **shown)


def _secret_page(viewer: Viewer, made: Service, secret: str) -> HTMLResponse:
    return render("registry/service_secret.html", viewer=viewer, service=made, secret=secret)


def _form_page(template: str, setback: Setback, **shown: object) -> HTMLResponse:
    return render(
        template,
        viewer=setback.viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        **shown,
    )


def _looks_after_people(caller: Caller, *, auditors: bool = False) -> None:
    if not (caller.is_admin or "lead" in caller.roles or (auditors and caller.is_auditor)):
        raise Forbidden("Only admins and a vendor's lead can do this.", advice="Ask an admin of the organisation.")


def _vendor_choices(tx: Transaction, caller: Caller) -> list[tuple[str, str]]:
    """The vendors something may be made for; a lead's own is understood."""
    if not caller.is_admin:
        return []
    require_admin(caller)
    return [(item.id, item.name) for item in vendors.VENDORS.page(tx, caller, Window(limit=_MOST_STAFF)).items]


def _vendor_names(tx: Transaction, ids: list[str]) -> dict[str, str]:
    return {row.id: row.name for row in tx.execute(select(Vendor.id, Vendor.name).where(Vendor.id.in_(ids)))}
