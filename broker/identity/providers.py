"""What identity providers say about themselves: discovery (OpenID Connect Discovery 1.0) and their keys (RFC 7517).

Kept for a while, per process, and so are failures: a provider that does not answer is asked again ever more slowly,
by one caller at a time, and everybody else is told at once. Keys are fetched anew when those kept do not fit, but not
more often than every few seconds, so that forged tokens cannot make us hammer a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import structlog

from broker.base.settings import Settings
from broker.identity import provider_http
from broker.identity.faults import ProviderDown, quoted
from broker.identity.provider_http import ProviderHttp, ProviderUnusable

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Asymmetric, current, and in everybody's libraries. `none` and the HMAC family can never be among them.
ALGORITHMS = (
    *("ES256", "ES384", "ES512"),
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("Ed25519", "EdDSA"),
)
KEPT = 3600.0
REFETCH_EVERY = 10.0
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 30.0
_MOST_KEYS = 50
_MOST_FAULTS = 1000
Key = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Provider:
    """The part of a provider's metadata that is used, checked."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    algorithms: tuple[str, ...]
    token_auth_methods: tuple[str, ...]
    announces_iss: bool


@dataclass(slots=True)
class _Fault:
    tries: int
    until: float
    why: str


class Faults:
    """What failed lately, by address. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._faults: dict[str, _Fault] = {}

    def guarded(self, url: str, work: Callable[[], T]) -> T:
        """What the work at this address returns; while it is known to fail, only one caller a pause tries.

        Raises:
            Unusable: it failed now, or lately.
        """
        with self._lock:
            known = self._faults.get(url)
            if known is not None:
                if monotonic() < known.until:
                    raise ProviderUnusable(known.why)
                # Whoever tries now tries for all.
                known.until = monotonic() + provider_http.SECONDS + 1
        try:
            found = work()
        except ProviderUnusable as error:
            self._note(url, error.why)
            raise
        self.forget(url)
        return found

    def forget(self, url: str) -> None:
        """Let everybody try again."""
        with self._lock:
            self._faults.pop(url, None)

    def _note(self, url: str, why: str) -> None:
        with self._lock:
            known = self._faults.pop(url, None)
            tries = known.tries + 1 if known else 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1))
            self._faults[url] = _Fault(min(tries, 8), monotonic() + pause, why)
            while len(self._faults) > _MOST_FAULTS:
                del self._faults[next(iter(self._faults))]


class Providers:
    """The providers this process has met. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.wire = ProviderHttp(settings)
        self.faults = Faults()
        # How a client's secret was last taken, by issuer and client id.
        self.methods: dict[tuple[str, str], str] = {}
        self._lock = Lock()
        self._met: dict[str, tuple[float, Provider]] = {}
        self._keys: dict[str, tuple[float, str, list[Key]]] = {}

    def discover(self, issuer: str) -> Provider:
        """The provider of an issuer.

        Raises:
            ProviderDown: it does not answer, or what it answers cannot be used.
        """
        with self._lock:
            at, known = self._met.get(issuer, (0.0, None))
        if known is not None and monotonic() - at < KEPT:
            return known
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        found = self._ask("discovery document", url, lambda told: _checked(issuer, told))
        with self._lock:
            self._met[issuer] = (monotonic(), found)
        return found

    def keys(self, provider: Provider) -> list[Key]:
        """The provider's keys, as kept or fetched.

        Raises:
            ProviderDown: they cannot be had.
        """
        with self._lock:
            at, uri, kept = self._keys.get(provider.issuer, (0.0, "", []))
        if uri == provider.jwks_uri and monotonic() - at < KEPT:
            return kept
        return self._fetch_keys(provider)

    def newer_keys(self, provider: Provider) -> list[Key] | None:
        """The provider's keys, fetched anew because those kept did not fit; None: they were fetched a moment ago.

        Raises:
            ProviderDown: they cannot be had.
        """
        with self._lock:
            at, _, _ = self._keys.get(provider.issuer, (float("-inf"), "", []))
        return None if monotonic() - at < REFETCH_EVERY else self._fetch_keys(provider)

    def forget(self, provider: Provider) -> None:
        """Ask for the metadata anew next time: an endpoint it names does not answer as it should."""
        with self._lock:
            at, known = self._met.get(provider.issuer, (0.0, None))
            if known is provider and monotonic() - at > REFETCH_EVERY:
                del self._met[provider.issuer]

    def _fetch_keys(self, provider: Provider) -> list[Key]:
        keys = self._ask("key set", provider.jwks_uri, _key_set)
        with self._lock:
            self._keys[provider.issuer] = (monotonic(), provider.jwks_uri, keys)
        return keys

    def _ask(self, what: str, url: str, understood: Callable[[Any], T]) -> T:
        try:
            return self.faults.guarded(url, lambda: understood(self.wire.get_json(url)))
        except ProviderUnusable as error:
            log.warning("provider.unusable", where=url, why=error.why)
            raise ProviderDown(f"The provider's {what} ({url}) cannot be used: {error.why}.") from error


def _key_set(told: Any) -> list[Key]:
    found = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(found, list):
        raise ProviderUnusable("it holds no list of keys")
    if len(found) > _MOST_KEYS:
        raise ProviderUnusable(f"it holds more than {_MOST_KEYS} keys")
    return [key for key in found if isinstance(key, dict)]


def _checked(issuer: str, told: Any) -> Provider:
    if not isinstance(told, dict):
        raise ProviderUnusable("it is no JSON object")
    if told.get("issuer") != issuer:
        raise ProviderUnusable(_other_issuer(issuer, told.get("issuer")))
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        if not provider_http.is_acceptable_url(told.get(name)):
            raise ProviderUnusable(f"its {name} is no https address")
    userinfo = told.get("userinfo_endpoint")
    offered = _strings(told, "id_token_signing_alg_values_supported")
    algorithms = tuple(name for name in ALGORITHMS if name in offered) if offered else ALGORITHMS
    if not algorithms:
        raise ProviderUnusable(f"it signs ID tokens with none of {', '.join(ALGORITHMS)}")
    return Provider(
        issuer,
        told["authorization_endpoint"],
        told["token_endpoint"],
        told["jwks_uri"],
        userinfo if provider_http.is_acceptable_url(userinfo) else None,
        algorithms,
        # Left out means this one (OpenID Connect Discovery 1.0, section 3).
        _strings(told, "token_endpoint_auth_methods_supported") or ("client_secret_basic",),
        told.get("authorization_response_iss_parameter_supported") is True,
    )


def _other_issuer(asked: str, said: Any) -> str:
    if isinstance(said, str):
        slash = " (mind the last /)" if said.rstrip("/") == asked.rstrip("/") else ""
        return f"it says that its issuer is {quoted(said)}, not {asked}{slash}"
    return "it names no issuer"


def _strings(told: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = told.get(name)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
