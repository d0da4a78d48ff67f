"""Asking for a role on a dataset, and following what one asked for. Deciding is `request_review`."""

from __future__ import annotations

from collections.abc import Mapping

from broker.base.errors import Invalid
from broker.base.paging import MOST, Window
from broker.identity.permissions import is_lead
from broker.registry import people, teams
from broker.registry.datasets import DATASETS, dataset
from broker.requests import requests
from broker.requests.requests import NewRequest
from broker.web.api.dataset_shapes import full
from broker.web.api.request_shapes import shown
from broker.web.portal.forms import Context, PortalRequest, form, page
from broker.web.portal.pages import duration

DAY = 86400
PERIODS = (DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY)


@page("/ask", template="ask.html")
def ask_page(req: PortalRequest) -> Context:
    """The form for asking; filled from an earlier request if `again` names one."""
    filled = req.sent or (_as_before(req) if req.asked("again") else {"dataset": req.asked("dataset")})
    offered = DATASETS.page(req.tx, req.caller, Window(limit=MOST), status="active").items
    return {
        "filled": filled,
        "datasets": [(item.slug, item.title) for item in offered],
        "periods": [(seconds, duration(seconds)) for seconds in PERIODS],
        "holders": _holders(req),
        "lapses": req.parts.settings.request_lifetime,
        **(_choices(req, filled["dataset"]) if filled.get("dataset") else {"chosen": None}),
    }


@form("/requests", rerender=ask_page, needs=None)
def ask(req: PortalRequest) -> str:
    """Ask."""
    return f"/requests/{requests.ask(req.parts, req.tx, req.caller, _new(req), req.now).id}"


@page("/requests", template="requests.html")
def own_requests(req: PortalRequest) -> Context:
    """What the person asked for."""
    found = requests.REQUESTS.page(req.tx, req.caller, req.window(), view="mine")
    return {"page": found, "requests": shown(req.tx, req.caller, found.items)}


def _as_before(req: PortalRequest) -> Mapping[str, str]:
    before = shown(req.tx, req.caller, [requests.request(req.tx, req.caller, req.asked("again"))])[0]
    person = f"person:{before.for_person.id}" if before.for_person else ""
    return {
        "dataset": before.dataset,
        "role": before.role,
        "slice": before.slice or "",
        "purpose": before.purpose,
        "period": str(before.period),
        "holder": f"team:{before.team}" if before.team else person,
    }


def _choices(req: PortalRequest, slug: str) -> Context:
    chosen = full(req.parts, req.tx, req.caller, dataset(req.tx, req.caller, slug))
    slices = [(item.name, item.name, item.description) for item in chosen.slices if item.state == "ready"]
    return {"chosen": chosen, "roles": [(role, role.capitalize()) for role in chosen.roles], "slices": slices}


def _holders(req: PortalRequest) -> list[tuple[str, str]]:
    """Whom a lead may ask for: the vendor's people and teams, each with what it is."""
    vendor = req.caller.vendor_id
    if vendor is None or not is_lead(req.caller, vendor):
        return []
    staff = [(f"person:{id_}", name) for id_, name in people.choices(req.tx, [vendor]).items() if id_ != req.caller.id]
    return [*staff, *((f"team:{team.id}", f"the team {team.name}") for team in teams.choices(req.tx, [vendor]))]


def _new(req: PortalRequest) -> NewRequest:
    if not req.field("role"):
        raise Invalid("Choose a role.", field="/role")
    if not req.field("purpose").strip():
        raise Invalid("Enter a purpose.", field="/purpose")
    if not req.field("period").isdecimal():
        raise Invalid("Choose a time.", field="/period")
    sort, _, holder = req.field("holder").partition(":")
    return NewRequest(
        dataset=req.field("dataset"),
        role=req.field("role"),
        purpose=req.field("purpose"),
        period=int(req.field("period")[:9]),
        slice=req.field("slice") or None,
        team_id=holder if sort == "team" else None,
        person_id=holder if sort == "person" else None,
    )
