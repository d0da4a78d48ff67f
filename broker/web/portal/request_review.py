"""A request's page, for who asked and for who decides; the queue of what waits; approving and refusing."""

from __future__ import annotations

from collections.abc import Mapping

from broker.base.errors import Invalid
from broker.registry import people
from broker.registry.naming import names_of
from broker.requests import approving, requests
from broker.requests.approving import Narrowing
from broker.requests.dossier import changes, check_unchanged, digest_of, dossier
from broker.web.api.request_shapes import RequestFull, full, shown
from broker.web.portal.forms import Context, PortalRequest, form, page
from broker.web.portal.pages import duration
from broker.web.portal.request_form import PERIODS

_VIEWS: Mapping[str, requests.View] = {"queue": "queue", "decided": "decided", "others": "others"}
LIFETIMES = (300, 900, 1800, 3600, 7200, 14400)


@page("/queue", template="queue.html", live=("/live/queue", "parts/queue_table.html"))
def queue(req: PortalRequest) -> Context:
    """What waits for this person's decision, oldest first; what was decided; what others decide."""
    view = _VIEWS.get(req.asked("show"), "queue")
    found = requests.REQUESTS.page(req.tx, req.caller, req.window(oldest_first=view != "decided"), view=view)
    items = shown(req.tx, req.caller, found.items)
    vendors = people.vendor_names(req.tx, {item.person.id for item in items})
    names = names_of(req.tx, {id_ for item in items for id_ in (item.team, item.service) if id_})
    return {"page": found, "requests": items, "view": view, "vendors": vendors, "names": names}


@page(
    "/requests/{request_id}",
    template="request.html",
    live=("/live/requests/{request_id}", "parts/request_state.html"),
)
def one_request(req: PortalRequest, request_id: str) -> Context:
    """One request: where it stands; to those who decide, the facts beside it."""
    record = requests.request(req.tx, req.caller, request_id)
    beside = dossier(req.parts, req.tx, req.caller, record, req.now) if req.viewer.inside else None
    found = full(req.tx, req.caller, record, beside)
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


@form("/requests/{request_id}/withdraw", rerender=one_request, needs=None)
def withdraw(req: PortalRequest, request_id: str) -> str:
    """Take one's request back."""
    requests.withdraw(req.tx, req.caller, request_id, req.now)
    return f"/requests/{request_id}"


@form("/requests/{request_id}/remind", rerender=one_request, needs=None)
def remind(req: PortalRequest, request_id: str) -> str:
    """Tell those who decide once more."""
    requests.remind(req.tx, req.caller, request_id, req.now)
    return f"/requests/{request_id}"


@form("/requests/{request_id}/approve", rerender=one_request)
def approve(req: PortalRequest, request_id: str) -> str:
    """Approve, as asked or narrower, if the facts are still those the approver saw."""
    narrowing = Narrowing(_number(req, "period"), req.field("slice") or None, _number(req, "max_lifetime"))
    found = requests.request(req.tx, req.caller, request_id, lock=True)
    check_unchanged(req.parts, req.tx, req.caller, found, digest_of(req.field("seen")), req.now)
    approving.approve(req.parts, req.tx, req.caller, request_id, narrowing, req.now)
    return f"/requests/{request_id}"


@form("/requests/{request_id}/refuse", rerender=one_request, needs=None)
def refuse(req: PortalRequest, request_id: str) -> str:
    """Refuse, with a reason that is shown to who asked."""
    approving.refuse(req.tx, req.caller, request_id, req.field("reason"), req.now)
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
