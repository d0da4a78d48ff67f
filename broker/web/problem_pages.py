"""Problems as pages: what each type means, and the same errors for people whose browser asked for a page."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from broker.errors import GuestkeyError, NotFound, NotSignedIn
from broker.web import problems
from broker.web.catalogue import CATALOGUE, ProblemType, code_of_status

router = APIRouter(include_in_schema=False)
_FOR_PROGRAMS = ("/api/", "/oauth/token", "/oauth/introspect", "/oauth/revoke", "/.well-known/")
_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)


@router.get("/problems/{code}")
def problem_page(code: str) -> HTMLResponse:
    """What a type of problem means and what to do about it; every problem document points here."""
    if code not in CATALOGUE:
        raise NotFound("There is no problem of that type.")
    return HTMLResponse(_render(CATALOGUE[code]))


def wants_page(request: Request) -> bool:
    """Whether a person's browser is behind this request rather than a program."""
    if request.url.path.startswith(_FOR_PROGRAMS):
        return False
    return "text/html" in request.headers.get("accept", "")


def page(request: Request, error: GuestkeyError) -> Response:
    """An error as a page. An ended session is no error: sign in and come back."""
    if isinstance(error, NotSignedIn):
        back = f"?next={quote(request.url.path)}" if request.method == "GET" else ""
        return RedirectResponse(f"/sign-in{back}", 303)
    status = problems.status_of(error)
    entry = CATALOGUE.get(error.code) or CATALOGUE[code_of_status(status)]
    return HTMLResponse(_render(entry, error.detail, error.advice, problems.request_id(request)), status)


def page_of_status(request: Request, status: int) -> Response:
    """A page for an error of which only the status is known."""
    return HTMLResponse(_render(CATALOGUE[code_of_status(status)], request_id=problems.request_id(request)), status)


def _render(entry: ProblemType, detail: str = "", advice: str = "", request_id: str = "") -> str:
    template = _pages.get_template("problems/problem.html")
    return template.render(entry=entry, detail=detail, advice=advice, request_id=request_id)
