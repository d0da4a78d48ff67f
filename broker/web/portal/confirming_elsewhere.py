"""Confirming a command line in the browser: for people whose second factor a terminal cannot ask for.

The page shows the terminal's code and where the question came from, so that nobody confirms somebody else's terminal.
"""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import NotFound
from broker.identity import terminal_confirmation
from broker.web.portal.acting import Setback, act, asked, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter(prefix="/confirm/command-line")


@router.get("")
def confirmed(viewer: MemberNow, signed_out: bool = False) -> Response:
    """Where answering leads: back to the terminal."""
    return render("elsewhere/answered.html", viewer=viewer, signed_out=signed_out)


@router.get("/{waiting_id}")
def look(waiting_id: str, viewer: MemberNow) -> Response:
    """The code to compare, where the question came from, and the second factor that answers it."""
    return _page(Setback(viewer), waiting_id)


@router.post("/{waiting_id}")
def confirm(waiting_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Prove a second factor here, for that command line."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            terminal_confirmation.confirm(tx, viewer.caller, waiting_id, clock(tx))
        return go("/confirm/command-line")

    # First, so that nobody proves a factor for nothing.
    with viewer.parts.database.transaction() as tx:
        terminal_confirmation.pending_confirmation(tx, viewer.caller, waiting_id, clock(tx))
    # However fresh the browser's factor is: what counts there was proven for the browser, not for a terminal.
    return act(
        viewer, sent, do, lambda setback: _page(setback, waiting_id), needs=lambda _: terminal_confirmation.SECONDS
    )


@router.post("/{waiting_id}/disown")
def disown(waiting_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """It was not this person who asked: sign that command line out."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            terminal_confirmation.reject(tx, viewer.caller, waiting_id, clock(tx))
        return go("/confirm/command-line?signed_out=true")

    return act(viewer, sent, do, lambda setback: _page(setback, waiting_id))


def _page(setback: Setback, waiting_id: str) -> HTMLResponse:
    viewer = setback.viewer
    try:
        with viewer.parts.database.transaction() as tx:
            waiting = terminal_confirmation.pending_confirmation(tx, viewer.caller, waiting_id, clock(tx))
    except NotFound:
        if setback.trouble is None:
            raise
        # It went while the factor was proven: a page, so that this browser's session is renewed with it.
        return render("elsewhere/gone.html", viewer=viewer, status=404, trouble=setback.trouble)
    panel = setback.panel or replace(asked(viewer, terminal_confirmation.SECONDS), interrupts=False)
    return render(
        "elsewhere/confirm.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=replace(panel, why="Confirm only if your terminal shows the code above."),
        waiting=waiting,
        from_here=waiting.address == viewer.caller.address,
    )
