"""The endpoints for programs: token, revoke, introspect, metadata and keys.

What a person sees and allows in the browser is `broker.web.portal.authorizing`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse

from broker.base.database import clock
from broker.identity import sessions
from broker.identity.secret_tokens import API_TOKEN_PREFIX
from broker.identity.sessions import GivenCode
from broker.kinds.access_tokens import signing_keys
from broker.oauth import clients, signed
from broker.oauth.refusals import OAuthRefused, form_of, no_store
from broker.runtime.parts import Parts

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
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "Bearer"],
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
        # First, so that a client that fails leaves the code as it is.
        client_id = clients.public_client(request, form)
        with parts.database.transaction() as tx:
            given = GivenCode(
                form.get("code", ""), client_id, form.get("redirect_uri", ""), form.get("code_verifier", "")
            )
            issued = sessions.redeem_code(tx, given, parts.settings.api_token_lifetime, clock(tx))
        if issued is None:
            raise OAuthRefused("invalid_grant", "The code is not valid, or was used.")
        return _bearer(*issued)
    if grant_type != "client_credentials":
        raise OAuthRefused("unsupported_grant_type", "Use authorization_code or client_credentials.")
    proven = clients.authenticated(parts, request, form)
    if "resource" in form:
        made = signed.issue_signed_token(parts, request.app.state.public_url, proven.caller, form)
        return _bearer(made.token, made.seconds, scope=made.scope)
    with parts.database.transaction() as tx:
        return _bearer(*clients.issue_api_token(tx, proven))


@router.post("/oauth/revoke", operation_id="oauth_revoke")
def revoke(request: Request, form: Form) -> JSONResponse:
    """End a token of either form (RFC 7009). Whoever holds it may; an unknown one is answered the same."""
    parts: Parts = request.app.state.parts
    given = form.get("token", "")
    if given.startswith(API_TOKEN_PREFIX):
        with parts.database.transaction() as tx:
            sessions.end_token(tx, given, clock(tx))
    else:
        signed.revoke_signed_token(parts, request.app.state.public_url, given)
    return JSONResponse({}, headers=no_store())


@router.post("/oauth/introspect", operation_id="oauth_introspect")
def introspect(request: Request, form: Form) -> JSONResponse:
    """Say whether a signed token is still good (RFC 7662), to a service of the organisation.

    The answer is read from the records: an ended lease is inactive on every replica from that commit on.
    """
    parts: Parts = request.app.state.parts
    clients.introspecting(parts, request, form)
    claims = signed.claims_of_live(parts, request.app.state.public_url, form.get("token", ""))
    if claims is None:
        return JSONResponse({"active": False}, headers=no_store())
    return JSONResponse({"active": True, "token_type": "Bearer", **claims}, headers=no_store())


def _bearer(access_token: str, seconds: int, **more: str) -> JSONResponse:
    body = {"access_token": access_token, "token_type": "Bearer", "expires_in": seconds, **more}
    return JSONResponse(body, headers=no_store())
