"""ID tokens (OpenID Connect Core 1.0 §2, §3.1.3.7), held to what we asked for; nothing looser is accepted.

joserfc verifies signatures, Authlib the standard claims. What both leave open is closed here: which key and
algorithm, exact audience, authorised party, nonce, and an `auth_time` that is recent, whole and not in the future.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry

from broker.identity.faults import quoted
from broker.identity.providers import Key, Provider, Providers

LONGEST = 16 * 1024
# Clocks of providers differ; in seconds.
LEEWAY = 60
_LEAST_RSA_BITS = 2048
_MOST_TRIED = 8
# A header may not bring keys of its own, nor ask for what is not understood here; anything else says nothing to us.
_FORBIDDEN = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "zip", "enc"})
_KEY_OF = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "Ed25519": ("OKP", "Ed25519"),
    # The name before RFC 9864; of its two curves, the one that everybody uses.
    "EdDSA": ("OKP", "Ed25519"),
}
_SAME = {"EdDSA": "Ed25519"}
# A key set may carry more, even private parts; only these are ever read.
_PUBLIC = ("kty", "crv", "x", "y", "n", "e")


class TokenRefused(Exception):
    """The ID token is not one that answers our question. Its text is for the operator."""


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """What the token must answer. `max_age` is in seconds; `others`: audiences it may be for beside us."""

    client_id: str
    nonce: str
    max_age: int
    others: tuple[str, ...] = ()


class _Registry(jws.JWSRegistry):
    """joserfc's, without its warning of algorithms by their older names: `EdDSA` is still what most send."""

    max_header_length = LONGEST

    def get_alg(self, name: str) -> Any:
        """See `JWSRegistry.get_alg`."""
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


class StrictIDToken(CodeIDToken):  # type: ignore[misc]
    """Authlib's claims, with the checks it leaves to others."""

    ESSENTIAL_CLAIMS = ("iss", "sub", "aud", "exp", "iat", "nonce", "auth_time")

    def validate(self, now: int | None = None, leeway: int = 0) -> None:
        """Check every claim against `params` (issuer, client_id, nonce, max_age, others).

        Raises:
            JoseError: a standard claim is wrong.
            TokenRefused: one of our own demands is not met.
        """
        assert now is not None  # PostgreSQL's clock, never this machine's
        super().validate(now=now, leeway=leeway)
        for name, holds in self._demands(now, leeway).items():
            if not holds:
                raise TokenRefused(_WRONG.get(name, f"its claim {name} is not what was asked for"))

    def _demands(self, now: int, leeway: int) -> dict[str, bool]:
        wanted, client_id = self.params, self.params["client_id"]
        issued, expires, authenticated = self["iat"], self["exp"], self["auth_time"]
        whole = all(type(moment) is int for moment in (issued, expires, authenticated))
        return {
            "iss": self["iss"] == wanted["issuer"],
            "sub": is_visible(self["sub"], 255),
            "aud": self._is_for(client_id, wanted["others"]),
            "azp": self.get("azp", client_id) == client_id,
            "nonce": bool(wanted["nonce"]) and self["nonce"] == wanted["nonce"],
            "whole times": whole,
            "iat": whole and issued <= now + leeway,
            "auth_time": whole and now - wanted["max_age"] - leeway <= authenticated <= now + leeway,
        }

    def _is_for(self, client_id: str, others: tuple[str, ...]) -> bool:
        """Whether it is for us alone, or for us and those the source names; then it must have been given to us."""
        audience = self["aud"] if isinstance(self["aud"], list) else [self["aud"]]
        if audience == [client_id]:
            return True
        known = all(isinstance(one, str) and one in (client_id, *others) for one in audience)
        return known and client_id in audience and self.get("azp") == client_id


_WRONG = {
    "aud": "it is not for this client alone, or for others that the source does not name (aud, azp)",
    "whole times": "its times (iat, exp, auth_time) are not whole numbers",
    "iat": "it was made in the future (iat): one of the clocks is wrong",
    "auth_time": "the person signed in there too long ago, or in the future (auth_time)",
}


def verified(token: Any, provider: Provider, providers: Providers) -> dict[str, Any]:
    """The claims of a token whose signature is the provider's. The claims themselves are not checked yet.

    Raises:
        TokenRefused: not a signed token of this provider.
        BackendDown: the provider's keys cannot be had.
    """
    header = _header(token)
    if header["alg"] not in provider.algorithms:
        raise TokenRefused(
            f"it is signed with {quoted(header['alg'])}, which the provider does not announce or is unsafe"
        )
    payload = _payload(token, header, providers.keys(provider))
    if payload is None and (newer := providers.newer_keys(provider)) is not None:
        payload = _payload(token, header, newer)
    if payload is None:
        raise TokenRefused("none of the keys that the provider publishes has signed it")
    try:
        claims = json.loads(payload)
    except ValueError as error:
        raise TokenRefused("it holds no JSON") from error
    if not isinstance(claims, dict):
        raise TokenRefused("it holds no claims")
    return claims


def check(claims: Mapping[str, Any], provider: Provider, expected: ExpectedClaims, now: datetime) -> None:
    """Hold verified claims to what was asked.

    Raises:
        TokenRefused: at least one of them does not answer it.
    """
    params = {"issuer": provider.issuer, **asdict(expected)}
    options = {"iss": {"essential": True, "value": provider.issuer}}
    try:
        StrictIDToken(dict(claims), {}, options, params).validate(now=int(now.timestamp()), leeway=LEEWAY)
    except (JoseError, TypeError, ValueError) as error:
        raise TokenRefused(quoted(str(error))) from error


def _header(token: Any) -> Mapping[str, Any]:
    """The header, read before anything else; a token is not parsed further if it brings keys of its own."""
    if token is None:
        raise TokenRefused("the provider sent none (does the client have the scope openid?)")
    if not isinstance(token, str) or not token.isascii():
        raise TokenRefused("it is no text")
    if token.count(".") == 4:
        raise TokenRefused("it is encrypted (JWE); register the client for signed ID tokens")
    if len(token) > LONGEST or token.count(".") != 2:
        raise TokenRefused(f"it is no signed token of at most {LONGEST // 1024} KB")
    encoded = token.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError as error:
        raise TokenRefused("its header cannot be read") from error
    if not isinstance(header, dict) or not isinstance(header.get("alg"), str):
        raise TokenRefused("its header names no algorithm")
    if found := sorted(_FORBIDDEN.intersection(header)):
        raise TokenRefused(f"its header holds {', '.join(found)}, which is never accepted")
    return header


def _payload(token: str, header: Mapping[str, Any], keys: list[Key]) -> bytes | None:
    """What the token says, if one of these keys has signed it."""
    registry = _Registry(algorithms=[header["alg"]], strict_check_header=False)
    fitting = [key for key in keys if key_fits(key, header)]
    # The key it names first; then those without a name.
    for key in sorted(fitting, key=lambda key: "kid" not in key)[:_MOST_TRIED]:
        with suppress(JoseError, ValueError, TypeError):
            made = JWKRegistry.import_key({name: key[name] for name in _PUBLIC if name in key})
            return jws.deserialize_compact(token, made, registry=registry).payload or b""
    return None


def key_fits(key: Key, header: Mapping[str, Any]) -> bool:
    """Whether a published key may have signed a token of this header."""
    algorithm = header["alg"]
    kind, curve = _KEY_OF.get(algorithm, ("RSA", None))
    meant = key.get("alg", algorithm)
    uses = key.get("key_ops", ["verify"])
    return (
        key.get("kty") == kind
        and key.get("crv") == curve
        and key.get("use", "sig") == "sig"
        and (not isinstance(uses, list) or "verify" in uses)
        and _SAME.get(meant, meant) == _SAME.get(algorithm, algorithm)
        and ("kid" not in header or key.get("kid", header["kid"]) == header["kid"])
        and (kind != "RSA" or _rsa_bits(key) >= _LEAST_RSA_BITS)
    )


def _rsa_bits(key: Key) -> int:
    modulus = key.get("n")
    return len(modulus) * 6 if isinstance(modulus, str) else 0


def is_visible(value: Any, longest: int) -> bool:
    """Whether this is a text of visible ASCII characters, at least one and at most so many."""
    return isinstance(value, str) and 0 < len(value) <= longest and all("!" <= letter <= "~" for letter in value)
