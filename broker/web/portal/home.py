"""Home: what the person holds, has asked for and may ask for; the page of those who still wait; and confirming."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.auditing import reading_events
from broker.auditing.reading_events import EventFilters
from broker.auditing.telling import told
from broker.base.database import Transaction
from broker.base.paging import Window
from broker.identity import recovery_notices
from broker.identity.login import safe_path
from broker.leases.holdings import GRANTS, LEASES
from broker.models import TeamMember, Vendor
from broker.registry.datasets import DATASETS
from broker.requests.requests import REQUESTS
from broker.suspensions.reports import SUSPENSIONS
from broker.web.api.dataset_shapes import summaries
from broker.web.api.holding_shapes import GrantShown, LeaseShown, grants_shown, leases_shown
from broker.web.api.request_shapes import shown
from broker.web.portal.acting import FRESH_SECONDS, Setback, act, asked, go
from broker.web.portal.pages import duration, render
from broker.web.portal.viewer import AnybodyNow, MemberNow, Sent, Viewer

router = APIRouter()
_FEW = Window(limit=10)


@router.get("/")
def home(viewer: MemberNow) -> HTMLResponse:
    """What is held now, what was asked for, and what there is; to an auditor, what happened."""
    if viewer.caller.is_auditor and not viewer.caller.is_admin:
        return _of_auditor(viewer)
    own = _own(viewer)
    with viewer.parts.database.transaction() as tx:
        offered = DATASETS.page(tx, viewer.caller, _FEW, status="active").items
        return render(
            "home.html",
            viewer=viewer,
            datasets=summaries(tx, offered),
            notices=recovery_notices.for_caller(tx, viewer.caller, viewer.now),
            **own,
        )


@router.get("/live/home")
def live_home(viewer: MemberNow) -> HTMLResponse:
    """The part of the home page that changes by itself."""
    return render("parts/own.html", viewer=viewer, **_own(viewer))


def _own(viewer: Viewer) -> dict[str, Any]:
    answers = viewer.parts.vault.answers()
    with viewer.parts.database.transaction() as tx:
        mine = REQUESTS.page(tx, viewer.caller, _FEW, view="mine")
        queue = REQUESTS.page(tx, viewer.caller, Window(limit=1), view="queue") if viewer.inside else None
        return {
            "leases": _own_leases(tx, viewer),
            "grants": _own_grants(tx, viewer),
            "requests": shown(tx, viewer.caller, mine.items),
            "queued": bool(queue and queue.items),
            "key_store": answers,
        }


def _of_auditor(viewer: Viewer) -> HTMLResponse:
    with viewer.parts.database.transaction() as tx:
        happened = reading_events.list_events(tx, viewer.caller, _FEW, EventFilters()).items
        return render(
            "home_auditor.html",
            viewer=viewer,
            events=told(tx, viewer.caller, happened),
            suspensions=SUSPENSIONS.page(tx, viewer.caller, _FEW, state="open").items,
            notices=recovery_notices.for_caller(tx, viewer.caller, viewer.now),
        )


@router.get("/waiting")
def waiting(viewer: AnybodyNow) -> Response:
    """For those who have joined and wait for an admin."""
    if viewer.found.status == "active":
        return go("/")
    with viewer.parts.database.transaction() as tx:
        vendor = tx.get(Vendor, viewer.caller.vendor_id) if viewer.caller.vendor_id else None
    return render("waiting.html", viewer=viewer, vendor=vendor)


@router.get("/confirm")
def confirm_page(viewer: MemberNow, next: str = "/") -> Response:
    """Prove the second factor ahead of need."""
    return _confirm(Setback(viewer), next)


@router.post("/confirm")
def confirm(viewer: MemberNow, sent: Sent) -> Response:
    """Prove it, and go back to where one was."""
    path = safe_path(sent.get("next", "/"))
    return act(viewer, sent, lambda _: go(path), lambda setback: _confirm(setback, path), needs=lambda _: FRESH_SECONDS)


def _confirm(setback: Setback, path: str) -> HTMLResponse:
    why = f"If you confirm now, you are rarely asked again within {duration(FRESH_SECONDS)}."
    panel = replace(setback.panel or asked(setback.viewer, FRESH_SECONDS), interrupts=False, why=why)
    status = 422 if panel.trouble else 200
    return render("confirm.html", viewer=setback.viewer, panel=panel, path=safe_path(path), status=status)


def _own_leases(tx: Transaction, viewer: Viewer) -> list[LeaseShown]:
    live = LEASES.page(tx, viewer.caller, Window(limit=20), person=viewer.caller.id, state="live")
    return leases_shown(tx, live.items)


def _own_grants(tx: Transaction, viewer: Viewer) -> list[GrantShown]:
    found = GRANTS.page(tx, viewer.caller, Window(limit=100), state="current").items
    teams = set(tx.scalars(select(TeamMember.team_id).where(TeamMember.person_id == viewer.caller.id)))
    return grants_shown(tx, [item for item in found if item.person_id == viewer.caller.id or item.team_id in teams])
