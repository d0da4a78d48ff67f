"""Leases: the list, one lease as it lives and ends, and asking for its end."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.access import holdings, renewing
from broker.access.paging import Page, Window
from broker.credentials import kinds
from broker.credentials.base import LeaseToEnd
from broker.database import now as clock
from broker.errors import Conflict, Denied
from broker.models import LIVE_STATES, Lease
from broker.web.api.holding_shapes import LeaseFull, LeaseShown, lease_full, leases_shown
from broker.web.portal.acting import Setback, act, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_BAR_WIDTH = 1000


@router.get("/leases")
def leases(
    viewer: MemberNow,
    cursor: str | None = None,
    state: str = "live",
    dataset: str = "",
    person: str = "",
    kind: str = "",
) -> HTMLResponse:
    """Leases: those that could not be ended first, then the others, ending soonest first; or all, newest first."""
    asked = {"state": state, "dataset": dataset, "person": person, "kind": kind}
    with viewer.parts.database.transaction() as tx:
        filters = holdings.Filters(dataset=dataset or None, person=person or None)
        page: Page[Lease] = Page([], None)
        if state == "all":
            page = holdings.list_leases(tx, viewer.caller, Window(cursor), filters)
            items = list(page.items)
        else:
            items = holdings.live_leases(tx, viewer.caller, filters, kind=kind or None)
        found = leases_shown(tx, items)
    return render(
        "leases.html",
        viewer=viewer,
        page=page,
        leases=found,
        state=state,
        asked=asked,
        kinds=[("", "Any"), *((name, name) for name in sorted(kinds))],
        failing=[lease for lease in found if lease.state == "revoke_failed"],
        by_hand={lease.id: _by_hand(lease, item) for lease, item in zip(found, items, strict=True)},
    )


@router.get("/live/leases")
def live_leases(viewer: MemberNow, dataset: str = "", person: str = "", kind: str = "") -> HTMLResponse:
    """The table of live leases, as it changes by itself."""
    with viewer.parts.database.transaction() as tx:
        filters = holdings.Filters(dataset=dataset or None, person=person or None)
        found = leases_shown(tx, holdings.live_leases(tx, viewer.caller, filters, kind=kind or None))
    return render("parts/lease_table.html", viewer=viewer, leases=found)


@router.get("/leases/{lease_id}")
def one_lease(lease_id: str, viewer: MemberNow) -> HTMLResponse:
    """One lease: its bar, its state, how it ends, and what happened to it."""
    return _page(Setback(viewer), lease_id)


@router.get("/live/leases/{lease_id}")
def live_lease(lease_id: str, viewer: MemberNow) -> HTMLResponse:
    """The part of a lease's page that changes by itself."""
    lease = _found(viewer, lease_id)
    return render("parts/lease_state.html", viewer=viewer, lease=lease, bar=bar(lease, viewer.now))


@router.post("/leases/{lease_id}/renew")
def renew(lease_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Let the same credential live longer, if everything holds now."""

    def do(viewer: Viewer) -> Response:
        try:
            renewing.renew(viewer.parts, viewer.caller, lease_id)
        except Denied as denied:
            reasons = " ".join(reason.sentence for reason in denied.decision.reasons)
            raise Conflict(f"It was not renewed. {reasons}", advice="It ends when it would have.") from denied
        return go(f"/leases/{lease_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, lease_id))


@router.post("/leases/{lease_id}/revoke")
def revoke(lease_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Ask for the end of a lease; its page shows when the backend has confirmed it."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            holdings.revoke_lease(tx, viewer.caller, lease_id, sent.get("reason", ""), clock(tx))
        return go(f"/leases/{lease_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, lease_id))


def bar(lease: LeaseFull, now: datetime) -> dict[str, int]:
    """Where issue, now and the end lie on a bar of a thousand units; `spent` is the part of its time used up."""
    whole = max(1.0, (lease.expires_at - lease.created_at).total_seconds())
    until = min(now, lease.ended_at or now)
    spent = min(1.0, max(0.0, (until - lease.created_at).total_seconds() / whole))
    return {"width": _BAR_WIDTH, "spent": round(spent * _BAR_WIDTH)}


def _by_hand(shown: LeaseShown, lease: Lease) -> str:
    """What an operator would type, for one that its backend does not let go of."""
    if shown.state != "revoke_failed":
        return ""
    return kinds[lease.kind].by_hand(LeaseToEnd(lease.id, lease.handle, {}, lease.backend_lease_id))


def _page(setback: Setback, lease_id: str) -> HTMLResponse:
    viewer = setback.viewer
    lease = _found(viewer, lease_id)
    return render(
        "lease.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        may_renew=viewer.caller.subject == lease.holder and kinds[lease.kind].renewable,
        lease=lease,
        live=lease.state in LIVE_STATES,
        bar=bar(lease, viewer.now),
    )


def _found(viewer: Viewer, lease_id: str) -> LeaseFull:
    with viewer.parts.database.transaction() as tx:
        return lease_full(tx, viewer.caller, holdings.lease(tx, viewer.caller, lease_id))
