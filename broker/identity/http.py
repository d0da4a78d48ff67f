"""Identity's edge: FastAPI dependencies that turn a request into a caller, and the cookies of signing in.

The only file of this package that knows HTTP. A request is either a bearer's or a cookie's, never both: with an
`Authorization` header the cookie does not count, so a header can never borrow a browser's session.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from broker.caller import Caller
from broker.database import Transaction
from broker.database import now as clock
from broker.errors import FactorNeeded, Forbidden, NotSignedIn
from broker.identity.callers import Recognised, confirmed, recognise_session, recognise_token
from broker.parts import Parts

SESSION_COOKIE = "__Host-guestkey"
BROWSER_COOKIE = "__Host-guestkey-browser"
SOURCE_COOKIE = "__Host-guestkey-source"
BROWSER_SECONDS = 600
SOURCE_SECONDS = 180 * 86400
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_LONGEST_TOKEN = 200


async def csrf_sent(request: Request) -> str:
    """The CSRF token that came with the request, in the header `X-CSRF-Token` or the form field `csrf_token`.

    Asynchronous because a form can be read in no other way here.
    """
    header = request.headers.get("x-csrf-token")
    if header is not None or request.method in _SAFE or SESSION_COOKIE not in request.cookies:
        return header or ""
    if not request.headers.get("content-type", "").startswith(_FORMS):
        return ""
    sent = (await request.form()).getlist("csrf_token")
    return sent[0] if len(sent) == 1 and isinstance(sent[0], str) else ""


def recognised(request: Request, csrf: Annotated[str, Depends(csrf_sent)]) -> Recognised:
    """Whoever is behind the request, also a person whom no admin has confirmed yet.

    Raises:
        NotSignedIn: nobody we know.
        Forbidden: a cookie's request that changes something lacks its session's CSRF token.
    """
    parts: Parts = request.app.state.parts
    with parts.database.transaction() as tx:
        now = clock(tx)
        found = _recognise(request, parts, tx, now)
    request.state.now = now
    request.state.holder = found.caller.holder_id
    request.state.csrf_token = found.csrf_token
    if found.csrf_token is not None and request.method not in _SAFE:
        _check_csrf(request, csrf, found.csrf_token)
    return found


RecognisedNow = Annotated[Recognised, Depends(recognised)]


def current_caller(found: RecognisedNow) -> Caller:
    """The active person or service behind the request.

    Raises:
        NotSignedIn: nobody we know, or somebody who still waits for confirmation (`not_confirmed`).
    """
    return confirmed(found)


def optional_caller(request: Request, csrf: Annotated[str, Depends(csrf_sent)]) -> Caller | None:
    """The caller, or None where nobody is signed in: for pages that show themselves to both."""
    try:
        return confirmed(recognised(request, csrf))
    except NotSignedIn:
        return None


def signed_in_person(caller: Annotated[Caller, Depends(current_caller)]) -> Caller:
    """The active person behind the request.

    Raises:
        Forbidden: it is a service.
    """
    if caller.kind != "person":
        raise Forbidden("This is for people, not for services.")
    return caller


def person_recognised(found: RecognisedNow) -> Recognised:
    """The person behind the request, confirmed or not: for looking at oneself and enrolling a factor.

    Raises:
        Forbidden: it is a service.
    """
    if found.caller.kind != "person":
        raise Forbidden("This is for people, not for services.")
    return found


def fresh_factor(max_age: int) -> Callable[..., Caller]:
    """A dependency: the person behind the request, with a second factor proven at most `max_age` seconds ago."""

    def dependency(request: Request, caller: Annotated[Caller, Depends(signed_in_person)]) -> Caller:
        require_fresh(caller, max_age, request.state.now)
        return caller

    return dependency


def require_fresh(caller: Caller, max_age: int, now: datetime) -> None:
    """Refuse a caller whose second factor was proven longer than `max_age` seconds ago, or never.

    Raises:
        FactorNeeded: with the freshness that is asked for.
    """
    if caller.factor_at is None or now - caller.factor_at > timedelta(seconds=max_age):
        raise FactorNeeded(
            "This needs a second factor proven more recently.",
            max_age=max_age,
            enrolled=caller.factor_enrolled,
            advice="Confirm with `guestkey confirm` or in the portal, then try again.",
        )


def csrf_token(request: Request) -> str:
    """The CSRF token that this session's forms must carry; empty for API tokens."""
    return getattr(request.state, "csrf_token", None) or ""


def address_of(request: Request) -> str:
    """The network address the request came from, behind trusted proxies."""
    return request.client.host if request.client else ""


def set_session(response: Response, cookie: str, seconds: int) -> None:
    """Give the browser its session. `Lax`, because the way back from a provider is a link from another site."""
    _set(response, SESSION_COOKIE, cookie, seconds)


def set_browser(response: Response, secret: str) -> None:
    """Bind a sign-in under way to this browser."""
    _set(response, BROWSER_COOKIE, secret, BROWSER_SECONDS)


def set_source(response: Response, source_id: str) -> None:
    """Remember in this browser where its person signs in: names of vendors are shown to nobody else."""
    _set(response, SOURCE_COOKIE, source_id, SOURCE_SECONDS)


def forget_session(response: Response) -> None:
    """Take the session's cookie back."""
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def forget_browser(response: Response) -> None:
    """Take the cookie of a finished sign-in back."""
    response.delete_cookie(BROWSER_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    # The __Host- prefix holds browsers to this: secure, this host only, every path.
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")


def _recognise(request: Request, parts: Parts, tx: Transaction, now: datetime) -> Recognised:
    bearer = _bearer(request)
    if bearer is not None:
        return recognise_token(tx, bearer, address_of(request), now)
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie is None:
        raise NotSignedIn(
            "No session and no token came with the request.",
            advice="Sign in with `guestkey login`, or in the portal.",
        )
    idle = timedelta(seconds=parts.settings.session_idle)
    return recognise_session(tx, cookie, address_of(request), now, idle=idle)


def _bearer(request: Request) -> str | None:
    sent = request.headers.getlist("authorization")
    if not sent:
        return None
    scheme, _, token = sent[0].partition(" ")
    if len(sent) != 1 or scheme.lower() != "bearer":
        raise NotSignedIn("Only one `Authorization: Bearer` header is understood here.")
    return token.strip()


def _check_csrf(request: Request, sent: str, expected: str) -> None:
    if _foreign(request) or len(sent) > _LONGEST_TOKEN or not hmac.compare_digest(sent.encode(), expected.encode()):
        raise Forbidden(
            "The request does not carry this session's CSRF token.",
            advice="Reload the page and send the form again.",
            code="csrf",
        )


def _foreign(request: Request) -> bool:
    """Whether the browser says that another site's page sent this. The token decides where it says nothing."""
    public = urlsplit(request.app.state.public_url)
    # Under our own `Referrer-Policy: no-referrer` browsers send `Origin: null` with our own forms.
    known = ("null", f"{public.scheme}://{public.netloc}")
    origin, site = request.headers.get("origin", "null"), request.headers.get("sec-fetch-site", "same-origin")
    return origin not in known or site not in ("same-origin", "none")
