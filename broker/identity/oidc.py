"""One sign-in at an OIDC provider: the address to go to, the code that comes back, the claims behind it.

Authlib runs the OAuth client over `wire`; `providers` knows the provider, `id_token` holds its token to what was
asked. Nothing here touches our records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import requests
import structlog
from authlib.integrations.requests_client import OAuth2Session

from broker.errors import NotSignedIn
from broker.identity import id_token, wire
from broker.identity.providers import Provider, Providers, provider_down

__all__ = ["Client", "Expected", "Providers", "authorization_url", "check_callback_issuer", "exchange", "refused"]

log = structlog.get_logger(__name__)
SCOPE = "openid email profile"
_LONGEST_CODE = 4096


@dataclass(frozen=True, slots=True)
class Client:
    """Our registration at one provider."""

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What one sign-in bound beforehand, and its answer must show. `max_age` is in seconds."""

    nonce: str
    code_verifier: str = field(repr=False)
    max_age: int


def authorization_url(
    providers: Providers, client: Client, expected: Expected, state: str, *, acr_values: str | None = None
) -> str:
    """Where to send the browser: code flow, PKCE S256, state, nonce, and always `max_age`.

    Raises:
        BackendDown: the provider does not answer usefully.
    """
    provider = providers.discover(client.issuer)
    extra = {"acr_values": acr_values} if acr_values else {}
    with _session(client, provider) as session:
        url, _ = session.create_authorization_url(
            provider.authorization_endpoint,
            state=state,
            code_verifier=expected.code_verifier,
            nonce=expected.nonce,
            max_age=str(expected.max_age),
            **extra,
        )
        return str(url)


def check_callback_issuer(providers: Providers, issuer: str, answered: str | None) -> None:
    """Check the callback's `iss` (RFC 9207): required where the provider advertises it, right wherever it is sent.

    Raises:
        NotSignedIn: it is missing or another's.
    """
    required = providers.discover(issuer).announces_iss
    if (answered is None and required) or (answered is not None and answered != issuer):
        raise refused("iss")


def exchange(providers: Providers, client: Client, expected: Expected, code: str, now: datetime) -> dict[str, Any]:
    """Turn the code into the claims of a verified ID token.

    Raises:
        NotSignedIn: the provider refused the code, or the token is not what it must be.
        BackendDown: the provider does not answer usefully.
    """
    provider = providers.discover(client.issuer)
    answer = _fetch_token(client, provider, expected, code)
    token = answer.get("id_token") if isinstance(answer, Mapping) else None
    try:
        claims = id_token.verified(token, provider, providers)
        wanted = id_token.Expected(client.client_id, expected.nonce, expected.max_age)
        id_token.check(claims, provider, wanted, now)
    except id_token.TokenRefused as error:
        raise refused(str(error)) from error
    return claims


def refused(what: str) -> NotSignedIn:
    """A sign-in that is not what it must be. What exactly goes to the log: it helps an attacker more than a person."""
    log.warning("oidc.refused", what=what)
    return NotSignedIn("The sign-in could not be verified.", advice="Sign in again.", code="sign_in_refused")


def _fetch_token(client: Client, provider: Provider, expected: Expected, code: str) -> Any:
    if len(code) > _LONGEST_CODE:
        raise refused("code")
    try:
        with _session(client, provider) as session:
            return session.fetch_token(
                provider.token_endpoint,
                code=code,
                code_verifier=expected.code_verifier,
                grant_type="authorization_code",
                allow_redirects=False,
            )
    except requests.RequestException as error:
        log.warning("oidc.token_endpoint", issuer=client.issuer, error=type(error).__name__)
        raise provider_down() from error
    except Exception as error:  # Authlib raises its own and, on garbage, json's and others: each is a refusal
        log.info("oidc.code_refused", issuer=client.issuer, error=type(error).__name__)
        raise refused("code") from error


def _session(client: Client, provider: Provider) -> Any:
    offered = provider.token_auth_methods
    method = "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"
    session = OAuth2Session(
        client.client_id,
        client.client_secret,
        scope=SCOPE,
        redirect_uri=client.redirect_uri,
        code_challenge_method="S256",
        token_endpoint_auth_method=method if client.client_secret else "none",
    )
    return wire.bounded(session)
