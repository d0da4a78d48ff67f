"""The endpoints for programs: token, revoke, introspect, metadata and keys.

What a person sees and allows in the browser is `broker.web.portal.authorizing`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import select, update
from starlette.requests import Request
from starlette.responses import JSONResponse

from broker import audit
from broker.access.facts import Ask
from broker.access.issuing import issue
from broker.caller import Caller
from broker.credentials.token import ALGORITHM, audience_of, signing_keys
from broker.database import now as clock
from broker.errors import Denied, FactorNeeded, GuestkeyError, NotFound
from broker.identity.secret_tokens import digest
from broker.models import ApiToken, Lease
from broker.oauth import clients, codes
from broker.oauth.refusals import OAuthRefused, form_of, no_store
from broker.parts import Parts

router = APIRouter(tags=["oauth"])
Form = Annotated[dict[str, str], Depends(form_of)]


@router.get("/.well-known/oauth-authorization-server", operation_id="oauth_metadata")
def metadata(request: Request) -> dict[str, Any]:
    """What this authorization server offers (RFC 8414)."""
    issuer = request.app.state.public_url
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "client_credentials"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }


@router.get("/.well-known/jwks.json", operation_id="oauth_keys")
def keys(request: Request) -> JSONResponse:
    """The public keys that verify signed tokens (RFC 7517)."""
    parts: Parts = request.app.state.parts
    body = {"keys": signing_keys.public_jwks(parts.vault)}
    return JSONResponse(body, headers={"Cache-Control": "public, max-age=60"})


@router.post("/oauth/token", operation_id="oauth_token")
def token(request: Request, form: Form) -> JSONResponse:
    """Exchange a code, or a service's secret, for an access token (RFC 6749, 3.2).

    With `resource=<address>/datasets/<slug>` (RFC 8707) a service gets a signed token for that dataset, through the
    gate; `scope` is the action, `slice:<name>` beside it names the slice.
    """
    parts: Parts = request.app.state.parts
    grant_type = form.get("grant_type")
    if grant_type == "authorization_code":
        with parts.database.transaction() as tx:
            outcome = codes.redeem(tx, form, parts.settings.api_token_lifetime, clock(tx))
        if isinstance(outcome, OAuthRefused):
            raise outcome
        return _bearer(*outcome)
    if grant_type != "client_credentials":
        raise OAuthRefused("unsupported_grant_type", "Use authorization_code or client_credentials.")
    caller = clients.authenticated(parts, request, form)
    if "resource" in form:
        return _signed(parts, request.app.state.public_url, caller, form)
    with parts.database.transaction() as tx:
        return _bearer(*clients.issue_api_token(tx, caller))


@router.post("/oauth/revoke", operation_id="oauth_revoke")
def revoke(request: Request, form: Form) -> JSONResponse:
    """End an opaque token (RFC 7009). Whoever holds it may; an unknown one is answered the same."""
    parts: Parts = request.app.state.parts
    with parts.database.transaction() as tx:
        now = clock(tx)
        ended = tx.execute(
            update(ApiToken)
            .where(ApiToken.token_hash == digest(form.get("token", "")), ApiToken.ended_at.is_(None))
            .values(ended_at=now, end_cause="revoked")
            .returning(ApiToken.id, ApiToken.person_id, ApiToken.service_id)
        ).one_or_none()
        if ended is not None:
            actor = f"person:{ended.person_id}" if ended.person_id else f"service:{ended.service_id}"
            audit.record(tx, "token.revoked", actor=actor, subject=ended.id, now=now)
    return JSONResponse({}, headers=no_store())


@router.post("/oauth/introspect", operation_id="oauth_introspect")
def introspect(request: Request, form: Form) -> JSONResponse:
    """Say whether a signed token is still good (RFC 7662), to a service of the organisation."""
    parts: Parts = request.app.state.parts
    caller = clients.authenticated(parts, request, form)
    if caller.vendor_id is not None:
        raise OAuthRefused("unauthorized_client", "Only services of the organisation introspect.", status=403)
    claims = _claims(parts, request.app.state.public_url, form.get("token", ""))
    if claims is None or not _lives(parts, str(claims.get("jti"))):
        return JSONResponse({"active": False}, headers=no_store())
    return JSONResponse({"active": True, "token_type": "Bearer", **claims}, headers=no_store())


def _bearer(access_token: str, seconds: int) -> JSONResponse:
    body = {"access_token": access_token, "token_type": "Bearer", "expires_in": seconds}
    return JSONResponse(body, headers=no_store())


def _signed(parts: Parts, issuer: str, caller: Caller, form: dict[str, str]) -> JSONResponse:
    slug = form["resource"].removeprefix(audience_of(issuer, ""))
    if audience_of(issuer, slug) != form["resource"]:
        raise OAuthRefused("invalid_target", f"A resource is {audience_of(issuer, '<slug>')}.")
    words = form.get("scope", "read").split()
    actions = [word for word in words if not word.startswith("slice:")]
    slices = [word.removeprefix("slice:") for word in words if word.startswith("slice:")]
    if len(actions) > 1 or len(slices) > 1:
        raise OAuthRefused("invalid_scope", "A scope is one action and at most one slice:<name>.")
    ask = Ask(slug, actions[0] if actions else "read", slices[0] if slices else None, "token")
    try:
        handed = issue(parts, caller, ask)
    except (Denied, FactorNeeded, NotFound) as error:
        raise OAuthRefused(_error_of(error), _said(error)) from error
    if handed.values is None:
        raise OAuthRefused("invalid_request", "This was answered before.")
    seconds = int((handed.lease.expires_at - handed.lease.created_at).total_seconds())
    return _bearer(handed.values["access_token"], seconds)


def _error_of(error: GuestkeyError) -> str:
    return "invalid_target" if isinstance(error, NotFound) else "access_denied"


def _said(error: GuestkeyError) -> str:
    if isinstance(error, Denied):
        return " ".join(f"{reason.code}: {reason.sentence}" for reason in error.decision.reasons)
    return error.detail


def _claims(parts: Parts, issuer: str, token: str) -> dict[str, Any] | None:
    if not token or len(token) > 8192:
        return None
    key_set = KeySet.import_key_set({"keys": signing_keys.public_jwks(parts.vault)})
    try:
        decoded = jwt.decode(token, key_set, algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if decoded.header.get("typ") != "at+jwt" or decoded.claims.get("iss") != issuer:
        return None
    return dict(decoded.claims)


def _lives(parts: Parts, lease_id: str) -> bool:
    with parts.database.transaction() as tx:
        now = clock(tx)
        live = select(Lease.id).where(
            Lease.id == lease_id, Lease.kind == "token", Lease.state == "active", Lease.expires_at > now
        )
        return tx.execute(live).first() is not None
