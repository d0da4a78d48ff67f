"""Confirming a command line in the browser: for people whose second factor a terminal cannot ask for.

The page shows the terminal's code and where the question came from, so that nobody confirms somebody else's terminal.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import NotFound
from broker.identity import terminal_confirmation
from broker.web.portal.forms import Context, PortalRequest, form, page
from broker.web.portal.pages import render
from broker.web.portal.viewer import Viewer

ADDRESS = "/confirm/command-line"


@page(ADDRESS, template="elsewhere/answered.html")
def confirmed(req: PortalRequest) -> Context:
    """Where answering leads: back to the terminal."""
    return {"signed_out": req.asked("signed_out") == "true"}


@page(f"{ADDRESS}/{{waiting_id}}", template="elsewhere/confirm.html")
def look(req: PortalRequest, waiting_id: str) -> Context | Response:
    """The code to compare, where the question came from, and the second factor that answers it."""
    try:
        waiting = terminal_confirmation.pending_confirmation(req.tx, req.caller, waiting_id, req.now)
    except NotFound:
        if req.failure is None or req.failure.trouble is None or req.viewer.proof is None:
            raise
        # It went while the factor was proven: a page, so that this browser's session is renewed with it.
        return render("elsewhere/gone.html", viewer=req.viewer, status=404, trouble=req.failure.trouble)
    why = "Confirm only if your terminal shows the code above."
    from_here = waiting.address == req.caller.address
    return {"waiting": waiting, "from_here": from_here, "ahead": terminal_confirmation.SECONDS, "why": why}


def _proof_for_a_terminal(viewer: Viewer, _sent: Mapping[str, str]) -> int:
    """However fresh the browser's factor is: what counts there was proven for the browser, not for a terminal."""
    # First, so that nobody proves a factor for nothing.
    with viewer.parts.database.transaction() as tx:
        terminal_confirmation.pending_confirmation(
            tx, viewer.caller, viewer.request.path_params["waiting_id"], clock(tx)
        )
    return terminal_confirmation.SECONDS


@form(f"{ADDRESS}/{{waiting_id}}", rerender=look, needs=_proof_for_a_terminal)
def confirm(req: PortalRequest, waiting_id: str) -> str:
    """Prove a second factor here, for that command line."""
    terminal_confirmation.confirm(req.tx, req.caller, waiting_id, req.now)
    return ADDRESS


@form(f"{ADDRESS}/{{waiting_id}}/disown", rerender=look, needs=None)
def disown(req: PortalRequest, waiting_id: str) -> str:
    """It was not this person who asked: sign that command line out."""
    terminal_confirmation.reject(req.tx, req.caller, waiting_id, req.now)
    return f"{ADDRESS}?signed_out=true"
