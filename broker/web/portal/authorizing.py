"""Letting a command line sign in, and confirming it with a second factor that a terminal cannot ask for.

The answer to the form is a page with a link, because a redirect to another origin after a form is blocked by our CSP.
The page that confirms shows the terminal's code and where the question came from, so that nobody confirms somebody
else's terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import clock
from broker.base.errors import NotFound, NotSignedIn
from broker.identity import secret_tokens, sessions, terminal_confirmation
from broker.oauth import refusals
from broker.oauth.refusals import AuthorizationRefused, OAuthRefused, query_of
from broker.web.portal.forms import Context, PortalRequest, act, page, router
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer, anybody

Query = Annotated[dict[str, str], Depends(query_of)]


@router.get("/oauth/authorize")
def authorize(request: Request, parameters: Query) -> Response:
    """Ask the person in the browser whether the command line on this computer may act for them."""
    asked = refusals.check_request(parameters, request.app.state.public_url)
    try:
        viewer = anybody(request)
    except NotSignedIn:
        here = f"{request.url.path}?{request.url.query}"
        return RedirectResponse(f"/sign-in?next={quote(here, safe='')}", 303)
    declined = {"error": "access_denied", "error_description": "You declined in the browser."}
    no = refusals.answer_address(asked.redirect_uri, asked.state, request.app.state.public_url, **declined)
    code = secret_tokens.short_code_of(asked.code_challenge)
    return render("authorize.html", viewer=viewer, asked=asked, parameters=parameters, no=no, code=code)


@router.post("/oauth/authorize")
def allow(request: Request, viewer: MemberNow, sent: Sent) -> HTMLResponse:
    """Make the code and show the link that hands it over."""
    try:
        asked = refusals.check_request(dict(sent), request.app.state.public_url)
    except AuthorizationRefused as error:
        # Nothing redirects after a form (see above), and our own page asked rightly.
        raise OAuthRefused(error.error, error.description) from error
    with viewer.parts.database.transaction() as tx:
        code = sessions.make_code(tx, viewer.caller, asked.redirect_uri, asked.code_challenge, clock(tx))
    link = refusals.answer_address(asked.redirect_uri, asked.state, request.app.state.public_url, code=code)
    answer = render("authorized.html", viewer=viewer, link=link)
    answer.headers["Cache-Control"] = "no-store"
    return answer


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


_WAITING, _SIGNED_OUT = f"{ADDRESS}/{{waiting_id}}", f"{ADDRESS}?signed_out=true"
act(_WAITING, terminal_confirmation.confirm, rerender=look, needs=_proof_for_a_terminal)
# It was not this person who asked: that command line is signed out.
act(f"{_WAITING}/disown", terminal_confirmation.reject, rerender=look, needs=None, then=_SIGNED_OUT)
