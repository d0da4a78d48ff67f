"""Asking for a role on a dataset, following what one asked for; what waits for a decision, approving and refusing."""

from __future__ import annotations

from collections.abc import Mapping

from broker.base.errors import Invalid
from broker.base.paging import MOST, Window
from broker.identity.permissions import is_lead
from broker.registry import people, teams
from broker.registry.datasets import DATASETS, dataset
from broker.registry.naming import names_of
from broker.requests import approving, requests
from broker.requests.approving import Narrowing
from broker.requests.dossier import changes, check_unchanged, digest_of, dossier
from broker.requests.requests import NewRequest
from broker.web.api.datasets import dataset_full
from broker.web.api.requests import RequestFull, request_full, requests_shown
from broker.web.portal.forms import Context, PortalRequest, act, form, page
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
    return {"page": found, "requests": requests_shown(req.tx, req.caller, found.items)}


def _as_before(req: PortalRequest) -> Mapping[str, str]:
    before = requests_shown(req.tx, req.caller, [requests.request(req.tx, req.caller, req.asked("again"))])[0]
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
    chosen = dataset_full(req.parts, req.tx, req.caller, dataset(req.tx, req.caller, slug))
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


_VIEWS: Mapping[str, requests.View] = {"queue": "queue", "decided": "decided", "others": "others"}
LIFETIMES = (300, 900, 1800, 3600, 7200, 14400)


@page("/queue", template="queue.html", live=("/live/queue", "parts/queue_table.html"))
def queue(req: PortalRequest) -> Context:
    """What waits for this person's decision, oldest first; what was decided; what others decide."""
    view = _VIEWS.get(req.asked("show"), "queue")
    found = requests.REQUESTS.page(req.tx, req.caller, req.window(oldest_first=view != "decided"), view=view)
    items = requests_shown(req.tx, req.caller, found.items)
    vendors = people.vendor_names(req.tx, {item.person.id for item in items})
    names = names_of(req.tx, {id_ for item in items for id_ in (item.team, item.service) if id_})
    return {"page": found, "requests": items, "view": view, "vendors": vendors, "names": names}


@page(
    "/requests/{request_id}", template="request.html", live=("/live/requests/{request_id}", "parts/request_state.html")
)
def one_request(req: PortalRequest, request_id: str) -> Context:
    """One request: where it stands; to those who decide, the facts beside it."""
    record = requests.request(req.tx, req.caller, request_id)
    beside = dossier(req.parts, req.tx, req.caller, record, req.now) if req.viewer.inside else None
    found = request_full(req.tx, req.caller, record, beside)
    state, seen = beside.state if beside else "", req.field("seen")
    failure = req.failure
    return {
        "request": found,
        # Approved is what was first seen, also when only a second factor was still missing.
        "seen": seen if failure and failure.panel and seen else state,
        "changes": changes(seen, state) if failure and failure.trouble and seen else [],
        "rules": list(zip(beside.rules, beside.conditions, strict=True)) if beside else [],
        "unmet": beside.unmet_beside if beside else [],
        **_narrower(found),
    }


act("/requests/{request_id}/withdraw", requests.withdraw, rerender=one_request, needs=None)
act("/requests/{request_id}/remind", requests.remind, rerender=one_request, needs=None)
act("/requests/{request_id}/refuse", approving.refuse, "reason", rerender=one_request, needs=None)


@form("/requests/{request_id}/approve", rerender=one_request)
def approve(req: PortalRequest, request_id: str) -> str:
    """Approve, as asked or narrower, if the facts are still those the approver saw."""
    narrowing = Narrowing(_number(req, "period"), req.field("slice") or None, _number(req, "max_lifetime"))
    found = requests.request(req.tx, req.caller, request_id, lock=True)
    check_unchanged(req.parts, req.tx, req.caller, found, digest_of(req.field("seen")), req.now)
    approving.approve(req.parts, req.tx, req.caller, request_id, narrowing, req.now)
    return f"/requests/{request_id}"


def _narrower(found: RequestFull) -> Context:
    """What an approver may choose: the period asked for or less, one slice, shorter lives of credentials."""
    longest = found.facts.longest_period if found.facts else found.period
    by_rule = found.facts.longest_lifetime if found.facts else None
    shorter = [seconds for seconds in reversed(PERIODS) if seconds < longest]
    kept = found.facts.retention_until if found.facts else None
    as_asked = longest == found.period or (found.until is not None and (kept is None or found.until <= kept))
    return {
        "periods": [(longest, f"{duration(longest)}, as requested" if as_asked else duration(longest))]
        + [(seconds, duration(seconds)) for seconds in shorter],
        "lifetimes": [(seconds, duration(seconds)) for seconds in LIFETIMES if by_rule is None or seconds < by_rule],
        "by_rule": f"As the rule allows: {duration(by_rule)}" if by_rule else "As the rule allows",
    }


def _number(req: PortalRequest, name: str) -> int | None:
    text = req.field(name)
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid("Enter a number of seconds.", field=f"/{name}")
    return int(text) if text else None
