"""The installation: where admins open it again, and confirm grants after a restore. Closing it is in `suspending`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Forbidden, NotFound
from broker.identity.caller import Caller
from broker.identity.permissions import sees_everything
from broker.models import Vendor
from broker.revocation import closing
from broker.web.api.holding_shapes import grants_shown
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
Act = Callable[[Transaction, Caller, Mapping[str, str], datetime], object]
_SHOWN = 100


@router.get("/installation")
def installation(viewer: MemberNow) -> HTMLResponse:
    """How the installation stands."""
    return _page(Setback(viewer), "", {})


@router.post("/installation/{what}")
def change_installation(what: str, viewer: MemberNow, sent: Sent) -> Response:
    """Open, or confirm grants."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            _act(what)(tx, viewer.caller, sent, clock(tx))
        return go("/installation")

    return act(viewer, sent, do, lambda back: _page(back, what, sent), needs=fresh)


def _act(what: str) -> Act:
    if what not in _ACTS:
        raise NotFound("There is no such action here.")
    return _ACTS[what]


def _confirm(tx: Transaction, caller: Caller, sent: Mapping[str, str], now: datetime) -> None:
    which = sent.get("which", "")
    if not which.startswith("vn_"):
        closing.confirm_grants(tx, caller, now, grants=[which])
        return
    while closing.confirm_grants(tx, caller, now, vendor=which) == closing.BATCH:
        continue


_ACTS: Mapping[str, Act] = {
    "open": lambda tx, caller, sent, now: closing.reopen(tx, caller, sent.get("reason", ""), now),
    "confirm": _confirm,
}


def _page(back: Setback, what: str, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    if not sees_everything(viewer.caller):
        raise Forbidden("Only admins and auditors can see this.", advice="Ask an admin of the organisation.")
    with viewer.parts.database.transaction() as tx:
        stands = closing.installation_state(tx)
        held = list(closing.held_grants(tx, viewer.caller, limit=_SHOWN))
        vendors = tx.scalars(select(Vendor).where(Vendor.status == "active").order_by(Vendor.name)).all()
        return render(
            "admin/installation.html",
            status=back.status if back.trouble or back.panel else 200,
            viewer=viewer,
            stands=stands,
            grants=grants_shown(tx, held),
            vendors=vendors if held else [],
            asked_for=what,
            filled=sent,
            trouble=back.trouble,
            panel=back.panel,
        )
