"""A request's page, for who asked and for who decides; the queue of what waits; approving and refusing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.paging import Window
from broker.models import Person, Vendor
from broker.registry.naming import names_of
from broker.requests import approving, requests
from broker.requests.approving import Narrowing
from broker.requests.dossier import Dossier, changes, check_unchanged, digest_of, dossier
from broker.web.api.request_shapes import RequestFull, full, shown
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.asking import PERIODS
from broker.web.portal.pages import duration, render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_VIEWS: Mapping[str, requests.View] = {"queue": "queue", "decided": "decided", "others": "others"}
LIFETIMES = (300, 900, 1800, 3600, 7200, 14400)


@router.get("/queue")
def queue(viewer: MemberNow, cursor: str | None = None, show: str = "queue") -> HTMLResponse:
    """What waits for this person's decision, oldest first; what was decided; what others decide."""
    return render("queue.html", viewer=viewer, **_queue(viewer, cursor, show))


@router.get("/live/queue")
def live_queue(viewer: MemberNow) -> HTMLResponse:
    """The part of the queue that changes by itself."""
    return render("parts/queue_table.html", viewer=viewer, **_queue(viewer, None, "queue"))


def _queue(viewer: Viewer, cursor: str | None, show: str) -> dict[str, Any]:
    view = _VIEWS.get(show, "queue")
    with viewer.parts.database.transaction() as tx:
        window = Window(cursor, oldest_first=view != "decided")
        page = requests.REQUESTS.page(tx, viewer.caller, window, view=view)
        found = shown(tx, viewer.caller, page.items)
        asked = {item.person.id for item in found}
        of = select(Person.id, Vendor.name).join(Vendor, Vendor.id == Person.vendor_id).where(Person.id.in_(asked))
        vendors = {row[0]: row[1] for row in tx.execute(of)}
        names = names_of(tx, {id_ for item in found for id_ in (item.team, item.service) if id_})
    return {"page": page, "requests": found, "view": view, "vendors": vendors, "names": names}


@router.get("/requests/{request_id}")
def one_request(request_id: str, viewer: MemberNow) -> HTMLResponse:
    """One request: where it stands; to those who decide, the facts beside it."""
    return _page(Setback(viewer), request_id, {}, "")


@router.get("/live/requests/{request_id}")
def live_request(request_id: str, viewer: MemberNow) -> HTMLResponse:
    """The part of a request's page that changes by itself."""
    return render("parts/request_state.html", viewer=viewer, request=_found(viewer, request_id)[0])


@router.post("/requests/{request_id}/withdraw")
def withdraw(request_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take one's request back."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            requests.withdraw(tx, viewer.caller, request_id, clock(tx))
        return go(f"/requests/{request_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, request_id, sent, "withdraw"))


@router.post("/requests/{request_id}/remind")
def remind(request_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Tell those who decide once more."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            requests.remind(tx, viewer.caller, request_id, clock(tx))
        return go(f"/requests/{request_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, request_id, sent, "remind"))


@router.post("/requests/{request_id}/approve")
def approve(request_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Approve, as asked or narrower, if the facts are still those the approver saw."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            now = clock(tx)
            found = requests.request(tx, viewer.caller, request_id, lock=True)
            check_unchanged(viewer.parts, tx, viewer.caller, found, digest_of(sent.get("seen", "")), now)
            approving.approve(viewer.parts, tx, viewer.caller, request_id, _narrowing(sent), now)
        return go(f"/requests/{request_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, request_id, sent, "approve"), needs=fresh)


@router.post("/requests/{request_id}/refuse")
def refuse(request_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Refuse, with a reason that is shown to who asked."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            approving.refuse(tx, viewer.caller, request_id, sent.get("reason", ""), clock(tx))
        return go(f"/requests/{request_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, request_id, sent, "refuse"))


def _page(setback: Setback, request_id: str, filled: Mapping[str, str], asked_for: str) -> HTMLResponse:
    found, beside = _found(setback.viewer, request_id)
    state, seen = beside.state if beside else "", filled.get("seen", "")
    return render(
        "request.html",
        viewer=setback.viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        asked_for=asked_for,
        filled=filled,
        request=found,
        # Approved is what was first seen, also when only a second factor was still missing.
        seen=seen if setback.panel and seen else state,
        changes=changes(seen, state) if setback.trouble and seen else [],
        rules=list(zip(beside.rules, beside.conditions, strict=True)) if beside else [],
        unmet=beside.unmet_beside if beside else [],
        **_narrower(found),
    )


def _found(viewer: Viewer, request_id: str) -> tuple[RequestFull, Dossier | None]:
    with viewer.parts.database.transaction() as tx:
        found = requests.request(tx, viewer.caller, request_id)
        beside = dossier(viewer.parts, tx, viewer.caller, found, clock(tx)) if viewer.inside else None
        return full(tx, viewer.caller, found, beside), beside


def _narrower(found: RequestFull) -> dict[str, Any]:
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


def _narrowing(sent: Mapping[str, str]) -> Narrowing:
    return Narrowing(
        period=_number(sent, "period"), slice=sent.get("slice") or None, max_lifetime=_number(sent, "max_lifetime")
    )


def _number(sent: Mapping[str, str], name: str) -> int | None:
    text = sent.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid("Enter a number of seconds.", field=f"/{name}")
    return int(text) if text else None
