"""Problems as pages: what each type means, and the same errors for people whose browser asked for a page."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from broker.base.errors import GuestkeyError, NotFound, NotSignedIn
from broker.web import problems
from broker.web.catalogue import CATALOGUE, ProblemType, code_of_status
from broker.web.portal.pages import render
from broker.web.portal.viewer import Viewer, Waiting, anybody, sign_in_path

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
    request: Request,
    entry: ProblemType,
    detail: str = "",
    advice: str = "",
    *,
    status: int = 200,
    framed: bool = True,
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
