"""`/factors`: your own second factors: adding, removing, recovering. For browsers: tokens change no factor.

What each way asks for is the table of docs/second-factor.md.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from broker.base import words
from broker.base.database import clock
from broker.base.errors import Invalid
from broker.identity import factors, invitations, passkeys, totp
from broker.identity.caller import FoundCaller
from broker.identity.factors import FactorProof
from broker.identity.http import renew_session
from broker.identity.totp import Enrolment
from broker.runtime.parts import Parts
from broker.web.api.common import PartsNow, Shown, Strict
from broker.web.api.me import CodeBody, PersonFound

router = APIRouter(prefix="/factors", tags=["me"])


class PasskeyShown(Shown):
    """One of your passkeys."""

    id: str
    name: str
    created_at: datetime
    last_used_at: datetime | None


class FactorsShown(Shown):
    """What you have. `enrolment_allowed_until`: this session may add a factor until then without an older one."""

    totp: bool
    passkeys: list[PasskeyShown]
    recovery_codes_left: int
    enrolment_allowed_until: datetime | None = None


class CodesShown(BaseModel):
    """Recovery codes, shown once; empty where you keep those you have."""

    recovery_codes: list[str]


class PasskeyBody(Strict):
    """What `navigator.credentials.create` answered, and a name to know the passkey by."""

    credential: dict[str, Any]
    name: Annotated[str, Field(min_length=1, max_length=80, examples=["Ada's laptop"])] = "Passkey"


class ProofBody(Strict):
    """One of your second factors, sent with the very request: a code, or a passkey's answer to its options."""

    code: Annotated[str | None, Field(min_length=1, max_length=64, examples=["123 456"])] = None
    passkey: Annotated[
        dict[str, Any] | None, Field(description="The answer to `POST /confirm/passkey/options`, as JSON.")
    ] = None


class LinkBody(Strict):
    """The last part of an enrolment link."""

    token: Annotated[str, Field(min_length=1, max_length=64)]


class EnrolmentWindow(BaseModel):
    """This session may add a factor until then."""

    enrolment_allowed_until: datetime | None


@router.get("", operation_id="list_factors")
def list_factors(found: PersonFound, parts: PartsNow) -> FactorsShown:
    """Your second factors."""
    with parts.database.transaction() as tx:
        held = FactorsShown.model_validate(factors.listed(tx, found.caller.id))
    until = found.enrolment_allowed_until
    return held.model_copy(update={"enrolment_allowed_until": until if until and until > found.now else None})


@router.post("/totp", operation_id="begin_totp")
def begin_totp(
    request: Request, response: Response, found: PersonFound, parts: PartsNow, body: ProofBody | None = None
) -> Enrolment:
    """A new secret for an authenticator app; it counts once a code of it is confirmed.

    Takes one of your factors in the body, unless this session's window for enrolling is open.
    """
    proof = _proof(request, response, parts, found, body)
    return totp.begin(parts, found.caller, found.enrolment_allowed_until, proof)


@router.post("/totp/confirm", operation_id="confirm_totp_enrolment")
def confirm_totp_enrolment(
    request: Request, response: Response, body: CodeBody, found: PersonFound, parts: PartsNow
) -> CodesShown:
    """Put the new secret in force with a first code. An older one stops working, your other sessions end."""
    codes = totp.confirm_enrolment(parts, found.caller, found.enrolment_allowed_until, body.code)
    renew_session(request, response)
    return CodesShown(recovery_codes=codes)


@router.post("/totp/remove", operation_id="remove_totp", status_code=204)
def remove_totp(request: Request, response: Response, body: ProofBody, found: PersonFound, parts: PartsNow) -> None:
    """Remove the authenticator app, unless it is your last factor. Takes one of your factors in the body."""
    proof = _proof(request, response, parts, found, body)
    with parts.database.transaction() as tx:
        factors.remove_totp(tx, found.caller, proof, clock(tx))


@router.post("/passkeys/options", operation_id="begin_passkey")
def begin_passkey(
    request: Request, response: Response, found: PersonFound, parts: PartsNow, body: ProofBody | None = None
) -> dict[str, Any]:
    """What `navigator.credentials.create` needs to make a passkey.

    Takes one of your factors in the body, unless this session's window for enrolling is open.
    """
    proof = _proof(request, response, parts, found, body)
    return passkeys.registration_options(parts, found.caller, found.enrolment_allowed_until, proof)


@router.post("/passkeys", operation_id="add_passkey", status_code=201)
def add_passkey(
    request: Request, response: Response, body: PasskeyBody, found: PersonFound, parts: PartsNow
) -> CodesShown:
    """Keep a passkey the browser made. Your other sessions end."""
    name = words.name(body.name, "/name", longest=80)
    codes = passkeys.register(parts, found.caller, found.enrolment_allowed_until, body.credential, name)
    renew_session(request, response)
    return CodesShown(recovery_codes=codes)


@router.post("/passkeys/{passkey_id}/remove", operation_id="remove_passkey", status_code=204)
def remove_passkey(
    passkey_id: str, request: Request, response: Response, body: ProofBody, found: PersonFound, parts: PartsNow
) -> None:
    """Remove a passkey, unless it is your last factor. Takes one of your factors in the body."""
    proof = _proof(request, response, parts, found, body)
    with parts.database.transaction() as tx:
        factors.remove_passkey(tx, found.caller, passkey_id, proof, clock(tx))


@router.post("/recovery-codes", operation_id="replace_recovery_codes")
def replace_recovery_codes(
    request: Request, response: Response, body: ProofBody, found: PersonFound, parts: PartsNow
) -> CodesShown:
    """Ten new recovery codes, in this answer and nowhere else; the old ones stop working.

    Takes one of your factors in the body.
    """
    response.headers["Cache-Control"] = "no-store"
    proof = _proof(request, response, parts, found, body)
    with parts.database.transaction() as tx:
        return CodesShown(recovery_codes=factors.replace_recovery_codes(tx, found.caller, proof, clock(tx)))


@router.post("/recover", operation_id="use_recovery_code")
def use_recovery_code(
    request: Request, response: Response, body: CodeBody, found: PersonFound, parts: PartsNow
) -> EnrolmentWindow:
    """Use up a recovery code: this session may enrol a new factor for ten minutes, every other one ends."""
    factors.use_recovery_code(parts, found.caller, body.code)
    renew_session(request, response)
    return EnrolmentWindow(enrolment_allowed_until=found.now + factors.RECOVERY_WINDOW)


@router.post("/enrolment", operation_id="open_enrolment")
def open_enrolment(
    request: Request, response: Response, body: LinkBody, found: PersonFound, parts: PartsNow
) -> EnrolmentWindow:
    """Use up an enrolment link made for you: this session may enrol a first factor."""
    factors.require_browser(found.caller)
    with parts.database.transaction() as tx:
        now = clock(tx)
        invitations.open_enrolment(tx, body.token, found.caller, now)
    renew_session(request, response)
    return EnrolmentWindow(enrolment_allowed_until=now + invitations.ENROLMENT_WINDOW)


def _proof(
    request: Request, response: Response, parts: Parts, found: FoundCaller, body: ProofBody | None
) -> FactorProof | None:
    """Prove the factor that came with the request; None if none came. Refused to tokens before anything is used up."""
    factors.require_browser(found.caller)
    if body is None or (body.code is None and body.passkey is None):
        return None
    if body.code is not None and body.passkey is not None:
        raise Invalid("Send a code or a passkey's answer, not both.", field="/code")
    if body.passkey is not None:
        proof = passkeys.prove(parts, found.caller, body.passkey)
    else:
        proof = totp.prove(parts, found.caller, body.code or "")
    renew_session(request, response)
    return proof
