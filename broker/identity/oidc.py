"""Talking to an OIDC provider, distrusting every byte: discovery, keys, the code, the ID token.

Authlib runs the OAuth client; the ID token is verified by joserfc and then by checks of our own, because Authlib's
accept a foreign `aud` with our `azp`, several audiences, and any `auth_time`. OpenID Connect Core 1.0, 3.1.3.7.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import requests
import structlog
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from broker.errors import BackendDown, NotSignedIn

log = structlog.get_logger(__name__)
TIMEOUT = 5.0
LEEWAY = 10
MOST_BYTES = 256 * 1024
MOST_TOKEN_BYTES = 16 * 1024
ALGORITHMS = ("ES256", "ES384", "RS256", "PS256", "Ed25519", "EdDSA")
SCOPE = "openid email profile"
_DISCOVERY_SECONDS = 300.0
_REFETCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Client:
    """Our registration at one provider."""

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What one sign-in bound beforehand, and its answer must show."""

    nonce: str
    code_verifier: str = field(repr=False)
    max_age: int


class Providers:
    """Discovery documents and keys of the providers in use, kept for minutes. Thread-safe."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._keys: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._lock = Lock()

    def metadata(self, issuer: str) -> Mapping[str, Any]:
        """The provider's metadata (OpenID Connect Discovery 1.0), whose issuer must be the one configured.

        Raises:
            BackendDown: it does not answer usefully.
        """
        return self._kept(self._documents, issuer, lambda: _discover(issuer), _DISCOVERY_SECONDS)

    def keys(self, issuer: str, *, fresh: bool = False) -> KeySet:
        """The provider's signing keys; `fresh` asks again, at most every few seconds."""
        uri = str(self.metadata(issuer)["jwks_uri"])
        _check_address(uri)
        seconds = _REFETCH_SECONDS if fresh else _DISCOVERY_SECONDS
        document = self._kept(self._keys, issuer, lambda: _get_json(uri), seconds)
        try:
            return KeySet.import_key_set(document)  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise _useless(issuer) from error

    def _kept(self, store: dict[str, Any], issuer: str, fetch: Any, seconds: float) -> Mapping[str, Any]:
        with self._lock:
            at, document = store.get(issuer, (0.0, None))
        if document is None or monotonic() - at > seconds:
            document = fetch()
            with self._lock:
                store[issuer] = (monotonic(), document)
        kept: Mapping[str, Any] = document
        return kept


def authorization_url(
    providers: Providers, client: Client, expected: Expected, state: str, *, acr_values: str | None = None
) -> str:
    """Where to send the browser: code flow, PKCE S256, state, nonce, and always `max_age`."""
    metadata = providers.metadata(client.issuer)
    endpoint = str(metadata["authorization_endpoint"])
    _check_address(endpoint)
    with _session(client) as session:
        extra = {"acr_values": acr_values} if acr_values else {}
        url, _ = session.create_authorization_url(
            endpoint,
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
    required = providers.metadata(issuer).get("authorization_response_iss_parameter_supported") is True
    if (answered is None and required) or (answered is not None and answered != issuer):
        raise refused("iss")


def exchange(providers: Providers, client: Client, expected: Expected, code: str, now: datetime) -> dict[str, Any]:
    """Turn the code into the claims of a verified ID token.

    Raises:
        NotSignedIn: the provider refused the code, or the token is not what it must be.
        BackendDown: the provider does not answer usefully.
    """
    endpoint = str(providers.metadata(client.issuer)["token_endpoint"])
    _check_address(endpoint)
    try:
        with _session(client) as session:
            answer = session.fetch_token(
                endpoint,
                code=code,
                code_verifier=expected.code_verifier,
                grant_type="authorization_code",
                timeout=TIMEOUT,
                allow_redirects=False,
            )
    except requests.RequestException as error:
        raise _silent(client.issuer) from error
    except Exception as error:  # Authlib raises its own and, on garbage, json's and others: each is a refusal
        log.info("oidc.code_refused", issuer=client.issuer, error=type(error).__name__)
        raise refused("code") from error
    token = answer.get("id_token") if isinstance(answer, Mapping) else None
    if not isinstance(token, str) or len(token) > MOST_TOKEN_BYTES:
        raise refused("id_token")
    claims = _verified(providers, client.issuer, token)
    check_claims(claims, client, expected, now)
    return claims


def check_claims(claims: Mapping[str, Any], client: Client, expected: Expected, now: datetime) -> None:
    """Check every claim that binds the token to this provider, client, browser and moment.

    Raises:
        NotSignedIn: naming the claim in the log only.
    """
    moment = now.timestamp()
    checks = {
        "iss": claims.get("iss") == client.issuer,
        "sub": isinstance(claims.get("sub"), str) and 0 < len(str(claims.get("sub"))) <= 255,
        "aud": claims.get("aud") in (client.client_id, [client.client_id]),
        "azp": claims.get("azp", client.client_id) == client.client_id,
        "nonce": bool(expected.nonce) and claims.get("nonce") == expected.nonce,
        "exp": _is_time(claims.get("exp")) and claims["exp"] > moment - LEEWAY,
        "iat": _is_time(claims.get("iat")) and claims["iat"] <= moment + LEEWAY,
        "auth_time": _is_time(claims.get("auth_time"))
        and moment - expected.max_age - LEEWAY <= claims["auth_time"] <= moment + LEEWAY,
    }
    for claim, right in checks.items():
        if not right:
            raise refused(claim)


def refused(what: str) -> NotSignedIn:
    """A sign-in that is not what it must be. What exactly goes to the log: it helps an attacker more than a person."""
    log.warning("oidc.refused", what=what)
    return NotSignedIn("The sign-in could not be verified.", advice="Sign in again.", code="sign_in_refused")


def _verified(providers: Providers, issuer: str, token: str) -> dict[str, Any]:
    header = _header_of(token)
    # A key or a place to fetch one from, inside the token itself, is a classic way in.
    if {"jwk", "jku", "x5u", "x5c", "crit"} & set(header) or header.get("alg") not in ALGORITHMS:
        raise refused("header")
    advertised = providers.metadata(issuer).get("id_token_signing_alg_values_supported")
    if isinstance(advertised, list) and header["alg"] not in advertised:
        raise refused("alg")
    for fresh in (False, True):
        keys = providers.keys(issuer, fresh=fresh)
        if header.get("kid") is not None and not any(key.kid == header["kid"] for key in keys.keys):
            continue
        try:
            payload = jws.deserialize_compact(token, keys, algorithms=[header["alg"]]).payload
            claims = json.loads(payload)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            log.info("oidc.signature", issuer=issuer, error=type(error).__name__)
            raise refused("signature") from error
        if not isinstance(claims, dict):
            raise refused("payload")
        return claims
    raise refused("kid")


def _header_of(token: str) -> dict[str, Any]:
    try:
        header: dict[str, Any] = dict(jws.extract_compact(token.encode()).headers())
    except (JoseError, ValueError, TypeError) as error:
        raise refused("form") from error
    return header


def _is_time(value: object) -> bool:
    return type(value) is int or (type(value) is float and value == value)


def _discover(issuer: str) -> Mapping[str, Any]:
    document = _get_json(issuer.rstrip("/") + "/.well-known/openid-configuration")
    needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if document.get("issuer") != issuer or not all(isinstance(document.get(name), str) for name in needed):
        raise _useless(issuer)
    return document


def _get_json(url: str) -> Mapping[str, Any]:
    _check_address(url)
    try:
        with requests.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True) as answer:
            body = answer.raw.read(MOST_BYTES + 1, decode_content=True)
            if answer.status_code != 200 or len(body) > MOST_BYTES:
                raise _useless(url)
            document = json.loads(body)
    except (requests.RequestException, OSError) as error:
        raise _silent(url) from error
    except ValueError as error:
        raise _useless(url) from error
    if not isinstance(document, dict):
        raise _useless(url)
    return document


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise _useless(url)


def _session(client: Client) -> Any:
    return OAuth2Session(
        client.client_id,
        client.client_secret,
        scope=SCOPE,
        redirect_uri=client.redirect_uri,
        code_challenge_method="S256",
        token_endpoint_auth_method="client_secret_basic" if client.client_secret else "none",
    )


def _silent(where: str) -> BackendDown:
    log.warning("oidc.silent", where=where)
    return BackendDown(
        "The place where you sign in does not answer.", backend="identity_provider", advice="Try again in a minute."
    )


def _useless(where: str) -> BackendDown:
    log.warning("oidc.useless", where=where)
    return BackendDown(
        "The place where you sign in answers in a way that cannot be trusted.",
        backend="identity_provider",
        advice="Tell the operator; the log names it.",
    )
