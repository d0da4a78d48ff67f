"""What is done for good, or takes somebody's key away: a page of its own each, with the name typed.

Offboarding a vendor and retiring a dataset happen at once; resetting a second factor waits for a second admin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.identity.caller import Caller
from broker.identity.permissions import require_admin
from broker.registry import datasets, people, vendors
from broker.revocation.counts import What
from broker.suspensions import suspending
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer
from broker.web.proposed import lifetime_of

router = APIRouter()
_WHAT: Mapping[str, What] = {"offboard": "vendor", "retire": "dataset", "reset-factor": "person"}
_AT_ONCE: Mapping[str, Callable[[Transaction, Caller, str, str, datetime], object]] = {
    "offboard": vendors.offboard_vendor,
    "retire": datasets.retire_dataset,
}


@router.get("/vendors/{key}/offboard")
@router.get("/datasets/{key}/retire")
@router.get("/people/{key}/reset-factor")
def look_before(key: str, viewer: MemberNow) -> HTMLResponse:
    """What would happen, and the form that does it."""
    return _page(Setback(viewer), key, {})


@router.post("/vendors/{key}/offboard")
@router.post("/datasets/{key}/retire")
@router.post("/people/{key}/reset-factor")
def part(key: str, viewer: MemberNow, sent: Sent) -> Response:
    """Do it, or for a second factor propose it."""

    def do(viewer: Viewer) -> Response:
        name = _act(viewer)
        with viewer.parts.database.transaction() as tx:
            target = suspending.find(tx, viewer.caller, _WHAT[name], key)
            if sent.get("typed", "").strip() != target.name:
                raise Invalid("The name does not match.", field="/typed", advice=f"Type {target.name} exactly.")
            if name in _AT_ONCE:
                _AT_ONCE[name](tx, viewer.caller, key, sent.get("reason", ""), clock(tx))
                return go(viewer.request.url.path.rpartition("/")[0])
            lifetime = lifetime_of(viewer.parts)
            waiting = people.propose_factor_reset(tx, viewer.caller, key, clock(tx), lifetime=lifetime)
            return go(f"/proposals/{waiting.id}")

    return act(viewer, sent, do, lambda back: _page(back, key, sent), needs=fresh)


def _act(viewer: Viewer) -> str:
    return viewer.request.url.path.rpartition("/")[2]


def _page(back: Setback, key: str, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    require_admin(viewer.caller)
    name = _act(viewer)
    with viewer.parts.database.transaction() as tx:
        run = suspending.dry_run(tx, viewer.caller, _WHAT[name], key)
    return render(
        "admin/parting.html",
        viewer=viewer,
        status=back.status if back.trouble or back.panel else 200,
        trouble=back.trouble,
        panel=back.panel,
        filled=sent,
        act=name,
        run=run,
        path=viewer.request.url.path,
    )
