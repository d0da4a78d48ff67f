"""The kill switch, each step a page: what it would end, agreeing to it, watching it happen, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.responses import Response

from broker.auditing.figures import confirmed
from broker.base.database import now as clock
from broker.base.errors import Invalid, NotFound
from broker.base.paging import Window
from broker.models import Person
from broker.registry.naming import names_of
from broker.revocation.counts import INSTALLATION, What
from broker.suspensions import reports, suspending
from broker.suspensions.suspending import DryRun
from broker.web.api.suspensions import CountsShown, dry_run_shown
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render, to_the_second
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_PLACES: Mapping[str, What] = {"vendors": "vendor", "people": "person", "datasets": "dataset"}
_SHOWN = 200
_CHARTED = 30


@router.get("/suspensions")
def all_suspensions(viewer: MemberNow, cursor: str | None = None, state: str = "") -> HTMLResponse:
    """Suspensions, newest first."""
    with viewer.parts.database.transaction() as tx:
        wanted = state if state in ("open", "lifted") else None
        page = reports.SUSPENSIONS.page(tx, viewer.caller, Window(cursor), state=wanted)
        ended = confirmed(tx, page.items[:_CHARTED], viewer.now)
    return render("suspend/list.html", viewer=viewer, page=page, state=wanted or "", confirmed=ended)


@router.get("/{place}/{key}/suspend")
def dry_run(place: str, key: str, viewer: MemberNow) -> HTMLResponse:
    """What suspending would end, how and how fast, and what it would not."""
    run = _dry_run(viewer, _what(place), key)
    return render("suspend/dry_run.html", viewer=viewer, path=_path(run), run=run, shown=dry_run_shown(run))


@router.get("/installation/close")
def dry_run_of_closing(viewer: MemberNow) -> HTMLResponse:
    """What closing the whole installation would end."""
    run = _dry_run(viewer, INSTALLATION, INSTALLATION)
    return render("suspend/dry_run.html", viewer=viewer, path=_path(run), run=run, shown=dry_run_shown(run))


@router.get("/{place}/{key}/suspend/confirm")
def agree(place: str, key: str, viewer: MemberNow) -> HTMLResponse:
    """Agreeing: reason, what those shut out are told, the name typed."""
    return _confirm_page(Setback(viewer), _what(place), key, {})


@router.get("/installation/close/confirm")
def agree_to_closing(viewer: MemberNow) -> HTMLResponse:
    """Agreeing to close the whole installation."""
    return _confirm_page(Setback(viewer), INSTALLATION, INSTALLATION, {})


@router.post("/{place}/{key}/suspend/confirm")
def suspend(place: str, key: str, viewer: MemberNow, sent: Sent) -> Response:
    """Suspend, and go where it can be watched."""
    return _suspend(viewer, _what(place), key, sent)


@router.post("/installation/close/confirm")
def close(viewer: MemberNow, sent: Sent) -> Response:
    """Close the whole installation. Whoever does it is signed out too: the answer says where to go on."""
    return _suspend(viewer, INSTALLATION, INSTALLATION, sent)


def _suspend(viewer: Viewer, what: What, key: str, sent: Mapping[str, str]) -> Response:
    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            target = suspending.find(tx, viewer.caller, what, key)
            if sent.get("typed", "").strip() != target.name:
                raise Invalid("The name does not match.", field="/typed", advice=f"Type {target.name} exactly.")
            begun, _ = suspending.suspend(
                tx,
                viewer.caller,
                what,
                key,
                sent.get("reason", ""),
                clock(tx),
                message=sent.get("message", ""),
                expected=_expected(sent),
            )
        if what == INSTALLATION:
            return render("suspend/closed.html", item=begun)
        return go(f"/suspensions/{begun.id}/live")

    return act(viewer, sent, do, lambda back: _confirm_page(back, what, key, sent), needs=fresh)


@router.get("/suspensions/{suspension_id}/live")
def live(suspension_id: str, viewer: MemberNow) -> HTMLResponse:
    """How far it is. Closing this page changes nothing."""
    return render("suspend/live.html", viewer=viewer, **_progress(viewer, suspension_id))


@router.get("/live/suspensions/{suspension_id}")
def live_part(suspension_id: str, viewer: MemberNow) -> HTMLResponse:
    """The part of that page that changes by itself."""
    return render("suspend/progress.html", viewer=viewer, **_progress(viewer, suspension_id))


@router.get("/suspensions/{suspension_id}")
def report(suspension_id: str, viewer: MemberNow) -> HTMLResponse:
    """The report: each credential's outcome, the longest exposure, how it differs from the dry run."""
    return _report_page(Setback(viewer), suspension_id, {})


@router.post("/suspensions/{suspension_id}/resume")
def resume(suspension_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Lift it. No session and no lease comes back."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            now = clock(tx)
            item = reports.report(viewer.parts, tx, viewer.caller, suspension_id, now).suspension
            what = cast("What", item.what)
            key = suspending.key_of(tx, what, item.target_id)
            suspending.resume(tx, viewer.caller, what, key, sent.get("reason", ""), now)
        return go(f"/suspensions/{suspension_id}")

    return act(viewer, sent, do, lambda back: _report_page(back, suspension_id, sent), needs=fresh)


def _what(place: str) -> What:
    if place not in _PLACES:
        raise NotFound("There is no such page.")
    return _PLACES[place]


def _path(run: DryRun) -> str:
    """Where the steps of suspending this are."""
    if run.target.what == INSTALLATION:
        return "/installation/close"
    place = next(place for place, what in _PLACES.items() if what == run.target.what)
    return f"/{place}/{run.target.key}/suspend"


def _dry_run(viewer: Viewer, what: What, key: str) -> DryRun:
    with viewer.parts.database.transaction() as tx:
        return suspending.dry_run(tx, viewer.caller, what, key)


def _expected(sent: Mapping[str, str]) -> Mapping[str, Any] | None:
    try:
        return CountsShown.model_validate(json.loads(sent.get("expected", ""))).model_dump()
    except (ValueError, ValidationError):
        # Only the report's comparison rests on it.
        return None


def _confirm_page(back: Setback, what: What, key: str, sent: Mapping[str, str]) -> HTMLResponse:
    run = _dry_run(back.viewer, what, key)
    counts = dry_run_shown(run).counts.model_dump_json()
    return render(
        "suspend/confirm.html",
        status=back.status if back.trouble or back.panel else 200,
        viewer=back.viewer,
        path=_path(run),
        run=run,
        # What was shown when the form was first opened, not what there is now.
        expected=sent.get("expected", counts),
        filled=sent,
        trouble=back.trouble,
        panel=back.panel,
    )


def _progress(viewer: Viewer, suspension_id: str) -> dict[str, Any]:
    with viewer.parts.database.transaction() as tx:
        found = reports.report(viewer.parts, tx, viewer.caller, suspension_id, clock(tx), only_open=True)
        failing = [outcome for outcome in found.outcomes if outcome.state == "revoke_failed"][:_SHOWN]
        names = names_of(tx, [outcome.lease for outcome in failing])
    since = to_the_second(found.suspension.started_at)
    shown = {"report": found, "item": found.suspension, "failing": failing, "names": names}
    return {**shown, "refused_since": since}


def _report_page(back: Setback, suspension_id: str, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        found = reports.report(viewer.parts, tx, viewer.caller, suspension_id, clock(tx))
        by = tx.get(Person, found.suspension.suspended_by)
        outcomes = found.outcomes[:_SHOWN]
        names = names_of(tx, [outcome.lease for outcome in outcomes])
    return render(
        "suspend/report.html",
        status=back.status if back.trouble or back.panel else 200,
        viewer=viewer,
        report=found,
        item=found.suspension,
        outcomes=outcomes,
        names=names,
        failing=[outcome for outcome in found.outcomes if outcome.state == "revoke_failed"][:_SHOWN],
        refused_since=to_the_second(found.suspension.started_at),
        by=by.name if by else found.suspension.suspended_by,
        filled=sent,
        trouble=back.trouble,
        panel=back.panel,
    )
