"""Letting the command line sign in: the page that asks, and the page whose link hands the code over.

The answer to the form is a page with a link, because a redirect to another origin after a form is blocked by our CSP.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import NotSignedIn
from broker.identity import api_tokens, secret_tokens
from broker.oauth import codes
from broker.oauth.refusals import AuthorizationRefused, OAuthRefused, query_of
from broker.web.portal.forms import router
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, anybody

Query = Annotated[dict[str, str], Depends(query_of)]


@router.get("/oauth/authorize")
def authorize(request: Request, parameters: Query) -> Response:
    """Ask the person in the browser whether the command line on this computer may act for them."""
    asked = codes.check_request(parameters, request.app.state.public_url)
    try:
        viewer = anybody(request)
    except NotSignedIn:
        here = f"{request.url.path}?{request.url.query}"
        return RedirectResponse(f"/sign-in?next={quote(here, safe='')}", 303)
    no = codes.denial_redirect(asked, request.app.state.public_url)
    code = secret_tokens.short_code_of(asked.code_challenge)
    return render("authorize.html", viewer=viewer, asked=asked, parameters=parameters, no=no, code=code)


@router.post("/oauth/authorize")
def allow(request: Request, viewer: MemberNow, sent: Sent) -> HTMLResponse:
    """Make the code and show the link that hands it over."""
    try:
        asked = codes.check_request(dict(sent), request.app.state.public_url)
    except AuthorizationRefused as error:
        # Nothing redirects after a form (see above), and our own page asked rightly.
        raise OAuthRefused(error.error, error.description) from error
    with viewer.parts.database.transaction() as tx:
        code = api_tokens.make_code(tx, viewer.caller, asked.redirect_uri, asked.code_challenge, clock(tx))
    link = codes.handing_over(asked, request.app.state.public_url, code)
    answer = render("authorized.html", viewer=viewer, link=link)
    answer.headers["Cache-Control"] = "no-store"
    return answer
