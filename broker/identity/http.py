"""The edge of identity that knows HTTP: cookies, bearer tokens, CSRF, and the dependencies routes declare."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from broker.base.errors import FactorNeeded, Forbidden, NotSignedIn
from broker.identity import sessions
from broker.identity.caller import Caller, FoundCaller, by_session, by_token
from broker.runtime.parts import Parts

SESSION_COOKIE = "__Host-guestkey"
SIGN_IN_COOKIE = "__Host-guestkey-sign-in"
CSRF_HEADER = "x-csrf-token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def find_caller(request: Request) -> FoundCaller:
    """Who is behind the request, by bearer token or session cookie; pending people included. No CSRF check.

    Raises:
        NotSignedIn: nobody.
    """
    kept: FoundCaller | None = getattr(request.state, "found", None)
    if kept is not None:
        return kept
    parts: Parts = request.app.state.parts
    address = request.client.host if request.client else None
    token = bearer_token(request)
    with parts.database.transaction() as tx:
        if token is not None:
            found = by_token(tx, token, address)
        else:
            cookie = request.cookies.get(SESSION_COOKIE, "")
            found = by_session(tx, cookie, address, idle=parts.settings.session_idle)
    request.state.found = found
    # From now on this caller spends its own rate, not its address's.
    request.state.holder = found.caller.holder_id
    return found


def find_session(request: Request) -> FoundCaller:
    """Who is behind a page.

    Raises:
        NotSignedIn: nobody.
        Forbidden: the page was asked for with an API token.
    """
    found = find_caller(request)
    if found.caller.how != "session":
        raise Forbidden("Pages are for browsers.", advice="Programs use the API under /api/v1.")
    return found


def found_caller(request: Request) -> FoundCaller:
    """Like `find_caller`; a changing request that comes with a cookie must also carry the session's CSRF token.

    Raises:
        NotSignedIn: nobody is behind the request.
        Forbidden: the header `X-CSRF-Token` is missing or another session's, or another site's page sent it.
    """
    found = find_caller(request)
    if found.caller.how == "session" and request.method not in _SAFE:
        check_own_form(request, request.headers.get(CSRF_HEADER, ""))
    return found


def current_caller(found: Annotated[FoundCaller, Depends(found_caller)]) -> Caller:
    """The caller of this request, confirmed.

    Raises:
        Forbidden: joining has not been confirmed yet.
    """
    if found.status != "active":
        raise Forbidden(
            "An admin has not confirmed you yet.",
            advice="Ask the person who invited you to have an admin confirm you.",
            code="person_pending",
        )
    return found.caller


def signed_in_person(caller: Annotated[Caller, Depends(current_caller)]) -> Caller:
    """The caller, if it is a person.

    Raises:
        Forbidden: it is a service.
    """
    if caller.kind != "person":
        raise Forbidden("Only people can do this.")
    return caller


def found_person(found: Annotated[FoundCaller, Depends(found_caller)]) -> FoundCaller:
    """The person behind the request, confirmed or still waiting; services have no factor and no session.

    Raises:
        Forbidden: it is a service.
    """
    signed_in_person(found.caller)
    return found


def fresh_factor(max_age: int) -> Callable[..., Caller]:
    """A dependency: the caller, whose second factor was proven in this session at most `max_age` seconds ago."""

    def dependency(found: Annotated[FoundCaller, Depends(found_caller)]) -> Caller:
        caller = signed_in_person(current_caller(found))
        require_fresh(caller, found, max_age)
        return caller

    return dependency


def require_fresh(caller: Caller, found: FoundCaller, max_age: int) -> None:
    """Check that the second factor is fresh enough.

    Raises:
        FactorNeeded: it is missing or stale (RFC 9470).
    """
    age = None if caller.factor_at is None else (found.now - caller.factor_at).total_seconds()
    if age is None or not -5 <= age <= max_age:
        raise FactorNeeded(
            "This needs a fresh second factor.",
            max_age=max_age,
            enrolled=caller.factor_enrolled,
            advice="Run `guestkey confirm`, or confirm in the portal, then try again."
            if caller.factor_enrolled
            else "Add a passkey or an authenticator app under Security first.",
        )


def bearer_token(request: Request) -> str | None:
    """The bearer token of the request (RFC 6750), None where there is no Authorization header.

    Raises:
        NotSignedIn: the header is there but is not of the form `Bearer <token>`.
    """
    headers = request.headers.getlist("authorization")
    if not headers:
        return None
    scheme, _, token = headers[0].partition(" ")
    if len(headers) != 1 or scheme.lower() != "bearer" or not token.strip():
        raise NotSignedIn("The Authorization header is not `Bearer <token>`.", advice="Sign in: `guestkey login`.")
    return token.strip()


def set_cookie(response: Response, name: str, value: str, *, seconds: int) -> None:
    """Set a cookie that only this host sees, only over TLS (or localhost), never from a script."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")


def renew_session(request: Request, response: Response) -> None:
    """Give the session a new cookie: after proving a factor, so that no earlier copy of the old one inherits it."""
    found = find_caller(request)
    parts: Parts = request.app.state.parts
    with parts.database.transaction() as tx:
        token = sessions.rotate(tx, found.caller)
    if token is not None:
        set_cookie(response, SESSION_COOKIE, token, seconds=parts.settings.session_lifetime)


def drop_cookie(response: Response, name: str) -> None:
    """Remove a cookie set by `set_cookie`."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


def check_own_form(request: Request, token: str) -> None:
    """Check that a page of ours sent this, in this very session: by what the browser says, and by the CSRF token.

    Raises:
        Forbidden: the token is missing or another session's, or another site's page sent it.
    """
    found = find_caller(request)
    own = bool(found.csrf_token) and hmac.compare_digest(token.encode(), found.csrf_token.encode())
    if not own or _from_elsewhere(request):
        raise Forbidden(
            "This form is out of date, or was sent from somewhere else.",
            advice="Reload the page and send it again.",
            code="csrf",
        )


def _from_elsewhere(request: Request) -> bool:
    # Our pages send no referrer, for which browsers call their origin "null"; so does a stranger's sandbox.
    origin = request.headers.get("origin", "null")
    if origin not in ("null", request.app.state.public_url):
        return True
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
