"""What a provider says of a person beside the ID token (OpenID Connect Core 1.0, section 5.3).

Some providers put nothing but the subject into ID tokens. Asked only where something is missing, and only for that:
who signed in, when and how, the ID token alone says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import structlog

from broker.identity.faults import ProviderDown, SignInRefused, quoted
from broker.identity.provider_http import ProviderUnusable
from broker.identity.providers import Provider, Providers

log = structlog.get_logger(__name__)
_NAMES = ("name", "preferred_username", "given_name", "family_name", "nickname")
_ADDRESS = ("email", "email_verified")
_OF_THE_TOKEN = frozenset(
    ("iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "auth_time", "acr", "amr", "at_hash", "c_hash", "sid")
)


def with_userinfo(
    providers: Providers, provider: Provider, claims: dict[str, Any], access_token: Any, wanted: Collection[str]
) -> dict[str, Any]:
    """The claims, with those that the ID token lacks.

    Args:
        wanted: names of claims that decide which source a person belongs to.

    Raises:
        SignInRefused: UserInfo speaks of somebody else.
        ProviderDown: a claim that decides is missing, and UserInfo does not answer usefully.
    """
    decides = [name for name in wanted if name not in claims]
    if not decides and all(name in claims for name in ("name", *_ADDRESS)):
        return claims
    endpoint = provider.userinfo_endpoint
    if endpoint is None or not _is_token(access_token):
        return claims
    try:
        told = providers.faults.guarded(endpoint, lambda: _object(providers.wire.get_json(endpoint, access_token)))
    except ProviderUnusable as error:
        log.warning("userinfo.unusable", issuer=provider.issuer, why=error.why)
        if decides:
            lacks = quoted(", ".join(decides))
            raise ProviderDown(
                f"The ID token lacks {lacks}, and UserInfo ({endpoint}) cannot be used: {error.why}."
            ) from error
        return claims
    # The one thing that makes it the same person's (section 5.3.2).
    if told.get("sub") != claims["sub"]:
        raise SignInRefused("The provider's UserInfo is about another person (its sub differs from the ID token's).")
    return _merged(claims, told, wanted)


def _merged(claims: Mapping[str, Any], told: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    names = [name for name in (*_NAMES, *wanted) if name not in (*_ADDRESS, *_OF_THE_TOKEN, *claims)]
    # An address and whether it is verified are one statement: never half of it from either.
    if told.get("email") == claims.get("email", told.get("email")):
        names += [name for name in _ADDRESS if name not in claims]
    return {**claims, **{name: told[name] for name in names if name in told}}


def _object(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ProviderUnusable("it answers something else than a JSON object (signed answers are not read)")
    return told


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 8192 and all("!" <= letter <= "~" for letter in value)
