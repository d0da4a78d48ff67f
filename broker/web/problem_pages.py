"""Problems as pages: what each type means, and the same errors for people whose browser asked for a page.

A form that came when its session had ended is shown back to whoever sent it, to be sent again after sign-in. Nothing is
stored: the fields travel in the page. A form is shown back only if the browser says that a page of ours sent it
(`Sec-Fetch-Site: same-origin`), so no other site can have one prepared here. It does nothing until somebody signed in
has looked at it and pressed the button, which carries the CSRF token of their session. Secrets and second factors are
left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from broker.base.errors import Forbidden, GuestkeyError, Invalid, NotFound, NotSignedIn
from broker.base.private_keys import is_private
from broker.web import problems
from broker.web.portal.pages import render
from broker.web.portal.viewer import Viewer, Waiting, anybody, fields, sign_in_path
from broker.web.problems import CATALOGUE, ProblemType, code_of_status

router = APIRouter(include_in_schema=False)
_FOR_PROGRAMS = ("/api/", "/oauth/token", "/oauth/introspect", "/oauth/revoke", "/.well-known/", "/pki/")


@router.get("/problems/{code}")
def problem_page(request: Request, code: str) -> HTMLResponse:
    """What a type of problem means and what to do about it; every problem document points here."""
    if code not in CATALOGUE:
        raise NotFound("There is no problem of that type.")
    return _page(request, CATALOGUE[code])


def wants_page(request: Request) -> bool:
    """Whether a person's browser is behind this request rather than a program."""
    if request.url.path.startswith(_FOR_PROGRAMS):
        return False
    return "text/html" in request.headers.get("accept", "")


def page(request: Request, error: GuestkeyError) -> Response:
    """An error as a page. An ended session is no error: sign in and come back."""
    if isinstance(error, NotSignedIn) and error.code == NotSignedIn.code:
        return RedirectResponse(sign_in_path(request), 303)
    if isinstance(error, Waiting):
        return RedirectResponse("/waiting", 303)
    status = problems.status_of(error)
    entry = CATALOGUE.get(error.code) or CATALOGUE[code_of_status(status)]
    return _page(request, entry, error.detail, error.advice, status=status)


def page_of_status(request: Request, status: int) -> Response:
    """A page for an error of which only the status is known."""
    return _page(request, CATALOGUE[code_of_status(status)], status=status)


def bare_page(request: Request, code: str, status: int, headers: Mapping[str, str] | None) -> Response:
    """A page for what was refused before any route: nobody is looked up for it."""
    answer = _page(request, CATALOGUE[code], status=status, framed=False)
    answer.headers.update(headers or {})
    return answer


def _page(
    request: Request, entry: ProblemType, detail: str = "", advice: str = "", *, status: int = 200, framed: bool = True
) -> HTMLResponse:
    return render(
        "problems/problem.html",
        viewer=_viewer(request) if framed else None,
        status=status,
        entry=entry,
        detail=detail,
        advice=advice,
        request_id=problems.request_id(request) if status >= 400 else "",
    )


def _viewer(request: Request) -> Viewer | None:
    """Who looks, where that can be told: a page about an error must not fail for want of its frame."""
    try:
        return anybody(request)
    except GuestkeyError:
        return None


# What belongs to one session only, or is about signing in itself.
_NEVER = ("/sign-out", "/sign-in", "/oauth/", "/security/", "/confirm")
_LEFT_OUT = frozenset({"csrf_token", "code", "passkey", "recovery_code", "client_secret", "target"})
_MOST_SHOWN = 12
_LONGEST = 20_000


async def offer_kept_form(request: Request, error: GuestkeyError) -> Response | None:
    """The page that shows a form back; None where it was no form of ours, or failed for another reason."""
    signed_out = isinstance(error, NotSignedIn) and error.code == NotSignedIn.code
    out_of_date = isinstance(error, Forbidden) and error.code == "csrf"
    if not (signed_out or out_of_date) or not _from_a_page_of_ours(request):
        return None
    try:
        sent = await fields(request)
    except Invalid:
        return None
    # A private key pasted in error has been sent once too often already.
    kept = {name: value for name, value in sent.items() if name not in _LEFT_OUT and not is_private(value)}
    if not any(value.strip() for value in kept.values()) or sum(map(len, kept.values())) > _LONGEST:
        return None
    return await run_in_threadpool(_kept_form, request, kept, signed_out)


def _from_a_page_of_ours(request: Request) -> bool:
    path = request.url.path
    # As the browser says it, not as assumed where it says nothing: whoever is asked to press must not have been led.
    same = request.headers.get("sec-fetch-site") == "same-origin"
    return request.method == "POST" and same and not path.startswith(_NEVER)


def _kept_form(request: Request, kept: Mapping[str, str], signed_out: bool) -> Response:
    seen = {name: value for name, value in kept.items() if value.strip()}
    return render(
        "kept_form.html",
        status=401 if signed_out else 403,
        viewer=None if signed_out else anybody(request),
        action=request.url.path,
        kept=kept,
        shown=list(seen.items())[:_MOST_SHOWN],
        more=max(0, len(seen) - _MOST_SHOWN),
        sign_in=sign_in_path(request),
    )
