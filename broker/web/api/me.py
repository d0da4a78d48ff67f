"""`/me`, `/confirm` and `/sessions`: who is asking, proving the second factor, and where one is signed in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import clock
from broker.base.paging import Whole
from broker.identity import passkeys, sessions, terminal_confirmation, totp
from broker.identity.caller import FoundCaller
from broker.identity.http import SESSION_COOKIE, drop_cookie, find_caller, found_caller, found_person, renew_session
from broker.identity.invitations import recovery_notices
from broker.identity.sessions import SignIn
from broker.models import Person
from broker.runtime.parts import Parts
from broker.web.api.common import CallerNow, PartsNow, Shown, Strict, VendorId

router = APIRouter(tags=["me"])
FoundNow = Annotated[FoundCaller, Depends(found_caller)]
PersonFound = Annotated[FoundCaller, Depends(found_person)]


class AccountNotice(Shown):
    """Something every admin must have seen."""

    at: datetime
    kind: str
    sentence: str


class Me(Shown):
    """Who is asking. `csrf_token` is for the browser's session only; `factor_at` is this session's or token's.

    `signed_in_until`: when it ends by itself; null where only the token itself says so.
    """

    subject: str
    id: str
    name: str
    email: str
    vendor: VendorId
    status: str
    roles: list[str]
    how: str
    signed_in_at: datetime
    signed_in_until: datetime | None
    factor_at: datetime | None
    factor_method: str | None
    factor_enrolled: bool
    csrf_token: str | None
    notices: list[AccountNotice]


class CodeBody(Strict):
    """A code from an authenticator app; blanks are fine."""

    code: Annotated[str, Field(min_length=1, max_length=64, examples=["123 456"])]


class CredentialBody(Strict):
    """What `navigator.credentials` answered, as JSON."""

    credential: dict[str, Any]


class WaitingShown(Shown):
    """A command line that waits to be confirmed in the browser, where the same code is shown."""

    id: str
    code: str
    expires_at: datetime


@router.get("/me", operation_id="show_me")
def show_me(found: FoundNow, parts: PartsNow) -> Me:
    """Who you are here, and how fresh your second factor is."""
    return _me(parts, found)


@router.post("/confirm/totp", operation_id="confirm_totp")
def confirm_totp(request: Request, response: Response, body: CodeBody, found: PersonFound, parts: PartsNow) -> Me:
    """Prove your second factor in this session or token with a code; each code works once."""
    totp.prove(parts, found.caller, body.code)
    return _proven(request, response, parts)


@router.post("/confirm/passkey/options", operation_id="confirm_passkey_options")
def confirm_passkey_options(found: PersonFound, parts: PartsNow) -> dict[str, Any]:
    """A challenge for one of your passkeys, as `navigator.credentials.get` takes it."""
    return passkeys.proof_options(parts, found.caller)


@router.post("/confirm/passkey", operation_id="confirm_passkey")
def confirm_passkey(
    request: Request, response: Response, body: CredentialBody, found: PersonFound, parts: PartsNow
) -> Me:
    """Prove your second factor in this session or token with a passkey."""
    passkeys.prove(parts, found.caller, body.credential)
    return _proven(request, response, parts)


@router.post("/confirm/browser", operation_id="confirm_in_browser", status_code=201)
def confirm_in_browser(caller: CallerNow, parts: PartsNow) -> WaitingShown:
    """Let this command line's token wait to be confirmed in the browser, at `/confirm/command-line/{id}`."""
    with parts.database.transaction() as tx:
        return WaitingShown.model_validate(terminal_confirmation.request_confirmation(tx, caller, clock(tx)))


@router.get("/confirm/browser/{waiting_id}", operation_id="waits_in_browser")
def waits_in_browser(waiting_id: str, caller: CallerNow, parts: PartsNow) -> WaitingShown:
    """What this token asked for, while nobody answered; `factor_at` of `GET /me` says how it was answered."""
    with parts.database.transaction() as tx:
        return WaitingShown.model_validate(terminal_confirmation.is_pending(tx, caller, waiting_id, clock(tx)))


def _proven(request: Request, response: Response, parts: Parts) -> Me:
    del request.state.found
    me = _me(parts, find_caller(request))
    renew_session(request, response)
    return me


def _me(parts: Parts, found: FoundCaller) -> Me:
    caller = found.caller
    with parts.database.transaction() as tx:
        person = tx.get(Person, caller.id)
        told = recovery_notices(tx, caller, found.now)
    return Me.of(
        caller,
        email=person.email if person else "",
        status=found.status,
        roles=sorted(caller.roles),
        signed_in_until=found.ends_at,
        csrf_token=found.csrf_token or None,
        notices=told,
    )


@router.get("/sessions", operation_id="list_sessions")
def list_sessions(found: PersonFound, parts: PartsNow) -> Whole[SignIn]:
    """Where you are signed in, newest first."""
    with parts.database.transaction() as tx:
        return Whole(items=sessions.list_sign_ins(tx, found.caller, found.now))


@router.delete("/sessions/{session_id}", operation_id="end_session", status_code=204)
def end_session(
    session_id: str,
    request: Request,
    response: Response,
    found: PersonFound,
    parts: PartsNow,
    and_allowed: Annotated[bool, Query(description="End the command lines signed in through it, too.")] = False,
) -> None:
    """End one of your sessions or API tokens at once."""
    end = sessions.end_with_allowed if and_allowed else sessions.end
    with parts.database.transaction() as tx:
        end(tx, found.caller, session_id, clock(tx))
    if session_id == found.caller.holder_id and SESSION_COOKIE in request.cookies:
        drop_cookie(response, SESSION_COOKIE)
