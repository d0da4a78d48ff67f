"""ID tokens (OpenID Connect Core 1.0 §2, §3.1.3.7), held to what we asked for; nothing looser is accepted.

joserfc verifies signatures, Authlib the standard claims. What both leave open is closed here: which key and
algorithm, exact audience, authorised party, nonce, and an `auth_time` that is recent, whole and not in the future.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from authlib.oidc.core import CodeIDToken
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from broker.identity.providers import Key, Provider, Providers

log = structlog.get_logger(__name__)
LONGEST = 16 * 1024
LEEWAY = 10
_LEAST_RSA_BITS = 2048
_HEADERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256", "cty"})
_KEY_OF = {"ES256": ("EC", "P-256"), "RS256": ("RSA", None), "PS256": ("RSA", None), "Ed25519": ("OKP", "Ed25519")}
# A key set may carry more, even private parts; only these are ever read.
_PUBLIC = ("kty", "crv", "x", "y", "n", "e")


class TokenRefused(Exception):
    """The ID token is not one that answers our question. Internal: its text goes to the log only."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the token must answer. `max_age` is in seconds."""

    client_id: str
    nonce: str
    max_age: int


class StrictIDToken(CodeIDToken):  # type: ignore[misc]
    """Authlib's claims, with the checks it leaves to others."""

    ESSENTIAL_CLAIMS = ("iss", "sub", "aud", "exp", "iat", "nonce", "auth_time")

    def validate(self, now: int | None = None, leeway: int = 0) -> None:
        """Check every claim against `params` (issuer, client_id, nonce, max_age).

        Raises:
            JoseError: a standard claim is wrong.
            TokenRefused: one of our own demands is not met.
        """
        assert now is not None  # PostgreSQL's clock, never this machine's
        super().validate(now=now, leeway=leeway)
        for name, holds in self._demands(now, leeway).items():
            if not holds:
                raise TokenRefused(name)

    def _demands(self, now: int, leeway: int) -> dict[str, bool]:
        wanted, client_id = self.params, self.params["client_id"]
        issued, expires, authenticated = self["iat"], self["exp"], self["auth_time"]
        whole = all(type(moment) is int for moment in (issued, expires, authenticated))
        return {
            "iss": self["iss"] == wanted["issuer"],
            "sub": _printable(self["sub"]),
            "aud": self["aud"] in (client_id, [client_id]),
            "azp": self.get("azp", client_id) == client_id,
            "nonce": bool(wanted["nonce"]) and self["nonce"] == wanted["nonce"],
            "whole times": whole,
            "iat": whole and issued <= now + leeway,
            "auth_time": whole and now - wanted["max_age"] - leeway <= authenticated <= now + leeway,
        }


def verified(token: Any, provider: Provider, providers: Providers) -> dict[str, Any]:
    """The claims of a token whose signature is the provider's. The claims themselves are not checked yet.

    Raises:
        TokenRefused: not a signed token of this provider.
        BackendDown: the provider's keys cannot be had.
    """
    header = _header(token)
    algorithm = header["alg"]
    if algorithm not in provider.algorithms:
        raise TokenRefused(f"algorithm {str(algorithm)[:20]!r}")
    keys = providers.keys(provider, lambda known: bool(_fitting(known, header)))
    fitting = _fitting(keys, header)
    if len(fitting) != 1:
        raise TokenRefused(f"{len(fitting)} fitting keys")
    try:
        key = JWKRegistry.import_key({name: fitting[0][name] for name in _PUBLIC if name in fitting[0]})
        payload = jws.deserialize_compact(token, key, algorithms=[algorithm]).payload
        claims = json.loads(payload or b"")
    except (JoseError, ValueError) as error:
        raise TokenRefused(type(error).__name__) from error
    if not isinstance(claims, dict):
        raise TokenRefused("no claims")
    return claims


def check(claims: Mapping[str, Any], provider: Provider, expected: Expected, now: datetime) -> None:
    """Hold verified claims to what was asked.

    Raises:
        TokenRefused: at least one of them does not answer it.
    """
    params = {
        "issuer": provider.issuer,
        "client_id": expected.client_id,
        "nonce": expected.nonce,
        "max_age": expected.max_age,
    }
    options = {"iss": {"essential": True, "value": provider.issuer}}
    try:
        StrictIDToken(dict(claims), {}, options, params).validate(now=int(now.timestamp()), leeway=LEEWAY)
    except (JoseError, TypeError, ValueError) as error:
        raise TokenRefused(str(error)[:200]) from error


def _header(token: Any) -> Mapping[str, Any]:
    """The header, read before anything else; a token is not parsed further if it brings keys of its own."""
    if not isinstance(token, str) or len(token) > LONGEST or not token.isascii() or token.count(".") != 2:
        raise TokenRefused("not a compact token of reasonable size")
    encoded = token.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError as error:
        raise TokenRefused("unreadable header") from error
    if not isinstance(header, dict) or not isinstance(header.get("alg"), str):
        raise TokenRefused("no algorithm")
    if not _HEADERS.issuperset(header):
        raise TokenRefused(f"header {sorted(set(header) - _HEADERS)!r}"[:100])
    return header


def _fitting(keys: list[Key], header: Mapping[str, Any]) -> list[Key]:
    return [key for key in keys if _fits(key, header)]


def _fits(key: Key, header: Mapping[str, Any]) -> bool:
    kind, curve = _KEY_OF[header["alg"]]
    return (
        key.get("kty") == kind
        and key.get("crv") == curve
        and key.get("use", "sig") == "sig"
        and key.get("alg", header["alg"]) == header["alg"]
        and key.get("kid") == header.get("kid", key.get("kid"))
        and (kind != "RSA" or _rsa_bits(key) >= _LEAST_RSA_BITS)
    )


def _rsa_bits(key: Key) -> int:
    modulus = key.get("n")
    return len(modulus) * 6 if isinstance(modulus, str) else 0


def _printable(subject: Any) -> bool:
    return isinstance(subject, str) and 0 < len(subject) <= 255 and all("!" <= letter <= "~" for letter in subject)
