"""Trying a sign-in source before anybody signs in: what its provider says, which keys it has, whether it knows us.

Asked anew each time, whatever this process keeps of the provider: admins check what they have just mended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from broker.base.errors import BackendDown, Invalid
from broker.base.resilience import ConcurrencyLimit
from broker.base.settings import Settings
from broker.identity import id_token, oidc
from broker.identity.faults import ProviderDown
from broker.identity.oidc import OidcClient
from broker.identity.providers import Provider, Providers

What = Literal["discovery", "keys", "client", "userinfo"]
_AT_ONCE = 2
_LONGEST_WAIT = 2.0


@dataclass(frozen=True, slots=True)
class SourceFinding:
    """One thing that was tried: what, whether it is as it must be, and what was found."""

    what: What
    ok: bool
    told: str


def _busy() -> BackendDown:
    return BackendDown(
        "Other sources are being tested now.", backend="identity_provider", advice="Try again in ten seconds."
    )


# An admin's request waits for the provider: a few may, so that the rest of the portal has its threads.
_ENTRANCE = ConcurrencyLimit(_AT_ONCE, _busy)


def check(settings: Settings, client: OidcClient) -> list[SourceFinding]:
    """Try a provider as this client, step by step, until one fails that the next need.

    Raises:
        BackendDown: others are tried at the moment.
    """
    with _ENTRANCE.entered(_LONGEST_WAIT):
        providers = Providers(settings)
        try:
            provider = providers.discover(client.issuer)
        except ProviderDown as error:
            return [SourceFinding("discovery", False, error.reason)]
        said = f"It signs ID tokens with {', '.join(provider.algorithms)}."
        return [
            SourceFinding("discovery", True, said),
            _tried("keys", lambda: _keys(providers, provider)),
            _tried("client", lambda: _client(providers, client, provider)),
            _userinfo(provider),
        ]


def require(settings: Settings, client: OidcClient) -> list[SourceFinding]:
    """Refuse a source that would let nobody in, with what its provider says; else what was found.

    Raises:
        Invalid: naming the field that is wrong.
        BackendDown: others are tried at the moment.
    """
    found = check(settings, client)
    for finding in found:
        if not finding.ok:
            field = "/client_secret" if finding.what == "client" else "/issuer"
            raise Invalid(finding.told, field=field, advice=_ADVICE[field])
    return found


_ADVICE = {
    "/issuer": "Fix it at the provider, or give the issuer exactly as in its discovery document.",
    "/client_secret": "Compare client id and secret with the provider's registration of Guestkey.",
}


def _tried(what: What, find: Callable[[], SourceFinding]) -> SourceFinding:
    try:
        return find()
    except ProviderDown as error:
        return SourceFinding(what, False, error.reason)


def _keys(providers: Providers, provider: Provider) -> SourceFinding:
    keys = providers.keys(provider)
    usable = sum(any(id_token.key_fits(key, {"alg": name}) for name in provider.algorithms) for key in keys)
    if not usable:
        return SourceFinding(
            "keys", False, f"None of its {len(keys)} keys fits the algorithms that it signs ID tokens with."
        )
    return SourceFinding("keys", True, f"{usable} of its {len(keys)} keys can sign ID tokens.")


def _client(providers: Providers, client: OidcClient, provider: Provider) -> SourceFinding:
    wrong = oidc.try_client(providers, client, provider)
    if wrong:
        return SourceFinding("client", False, wrong)
    return SourceFinding("client", True, "Its token endpoint does not refuse our client id and secret.")


def _userinfo(provider: Provider) -> SourceFinding:
    if provider.userinfo_endpoint is None:
        return SourceFinding(
            "userinfo", True, "It has no UserInfo: name, e-mail and required claims must be in the ID token."
        )
    return SourceFinding("userinfo", True, "Claims that its ID tokens lack are read from its UserInfo.")
