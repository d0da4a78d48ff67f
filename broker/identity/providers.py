"""What identity providers say about themselves: discovery (OpenID Connect Discovery 1.0) and their keys (RFC 7517).

Cached for a while, per process. A kid nobody knows makes the keys be fetched anew, but not more often than every
half minute, so that forged tokens cannot make us hammer a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import requests
import structlog

from broker.errors import BackendDown
from broker.identity import wire

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Asymmetric, current, and in everybody's libraries. `none` and the HMAC family can never be among them.
ALGORITHMS = ("ES256", "RS256", "PS256", "Ed25519")
KEPT = 3600.0
REFETCH_EVERY = 30.0
_MOST_KEYS = 50
Key = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Provider:
    """The part of a provider's metadata that is used, checked."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    algorithms: tuple[str, ...]
    token_auth_methods: tuple[str, ...]
    announces_iss: bool


class Providers:
    """The providers this process has met. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._met: dict[str, tuple[float, Provider]] = {}
        self._keys: dict[str, tuple[float, list[Key]]] = {}

    def discover(self, issuer: str) -> Provider:
        """The provider of an issuer.

        Raises:
            BackendDown: it does not answer, or what it answers cannot be used.
        """
        known = self._kept(self._met, issuer, KEPT)
        if known is not None:
            return known
        found = _checked(issuer, _fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
        with self._lock:
            self._met[issuer] = (monotonic(), found)
        return found

    def keys(self, provider: Provider, wanted: Callable[[list[Key]], bool]) -> list[Key]:
        """The provider's keys; fetched anew, though not too often, when those kept do not hold the wanted one.

        Raises:
            BackendDown: they cannot be had.
        """
        uri = provider.jwks_uri
        kept = self._kept(self._keys, uri, KEPT)
        if kept is not None and (wanted(kept) or self._kept(self._keys, uri, REFETCH_EVERY) is not None):
            return kept
        answer = _fetch(uri)
        found = answer.get("keys") if isinstance(answer, dict) else None
        if not isinstance(found, list) or len(found) > _MOST_KEYS:
            raise _unusable(uri, "no usable key set")
        keys: list[Key] = [key for key in found if isinstance(key, dict)]
        with self._lock:
            self._keys[uri] = (monotonic(), keys)
        return keys

    def _kept(self, where: Mapping[str, tuple[float, T]], name: str, seconds: float) -> T | None:
        with self._lock:
            at, value = where.get(name, (0.0, None))
        return value if value is not None and monotonic() - at < seconds else None


def _checked(issuer: str, told: Any) -> Provider:
    if not isinstance(told, dict) or told.get("issuer") != issuer:
        raise _unusable(issuer, "another issuer")
    endpoints = [told.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(wire.acceptable(endpoint) for endpoint in endpoints):
        raise _unusable(issuer, "an endpoint without https")
    offered = _strings(told.get("id_token_signing_alg_values_supported"))
    algorithms = tuple(name for name in ALGORITHMS if name in offered)
    if not algorithms:
        raise _unusable(issuer, "no algorithm we accept")
    methods = _strings(told.get("token_endpoint_auth_methods_supported")) or ("client_secret_basic",)
    announces_iss = told.get("authorization_response_iss_parameter_supported") is True
    authorize, token, keys = (str(endpoint) for endpoint in endpoints)
    return Provider(issuer, authorize, token, keys, algorithms, methods, announces_iss)


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _fetch(url: str) -> Any:
    if not wire.acceptable(url):
        raise _unusable(url, "no https")
    try:
        return wire.get_json(url)
    except requests.RequestException as error:
        raise _unusable(url, type(error).__name__) from error


def _unusable(where: str, why: str) -> BackendDown:
    log.warning("provider.unusable", where=where, why=why)
    return provider_down()


def provider_down() -> BackendDown:
    """The one error for a provider that does not answer usefully; the log says which and why."""
    return BackendDown(
        "Your organisation's sign-in service does not answer as it should.",
        backend="identity_provider",
        advice="Try again in a minute. If it lasts, tell your contact at the organisation.",
    )
