"""Proposing sign-in sources, and trying them. They decide who somebody is, so binding one takes two admins.

Trying one asks its provider anew, whatever this process keeps of it: what it says, which keys it has, whether it knows
us. Admins check what they have just mended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from broker.base import words
from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown, Invalid
from broker.base.resilience import ConcurrencyLimit
from broker.base.settings import Settings
from broker.identity import id_token, login, oidc, sources
from broker.identity.caller import Caller
from broker.identity.faults import ProviderDown
from broker.identity.oidc import OidcClient
from broker.identity.permissions import require_admin
from broker.identity.providers import Provider, Providers
from broker.models import Proposal
from broker.registry import proposals, vendors
from broker.runtime.parts import Parts

What = Literal["discovery", "keys", "client", "userinfo"]
_AT_ONCE = 2
_LONGEST_WAIT = 2.0


@dataclass(frozen=True, slots=True)
class NewSource:
    """A source to bind to a vendor, or (`vendor_id` None) to the organisation."""

    name: str
    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    required_claims: Mapping[str, str | int | bool]
    other_audiences: Sequence[str] = ()
    vendor_id: str | None = None


def propose_source(parts: Parts, caller: Caller, new: NewSource) -> Proposal:
    """Propose to bind a source. Its provider is tried first: one that would let nobody in is refused."""
    require_admin(caller)
    source_id = sources.new_source_id()
    details: dict[str, Any] = {
        "id": source_id,
        "name": words.name(new.name, "/name"),
        "issuer": sources.check_issuer(new.issuer),
        "client_id": _plain(new.client_id, "/client_id"),
        "required_claims": sources.check_claims(new.required_claims),
        "other_audiences": sources.check_audiences(new.other_audiences, new.client_id),
        "vendor_id": new.vendor_id,
    }
    with parts.database.transaction() as tx:
        if new.vendor_id is not None:
            vendors.vendor(tx, caller, new.vendor_id)
        sources.check_alone(tx, new.issuer, new.client_id, new.required_claims)
    secret = new.client_secret
    require_usable(parts.settings, OidcClient(new.issuer, new.client_id, secret, login.callback(parts.settings)))
    # Wrapped before it is kept anywhere, a proposal included; bound to the id the source will have.
    details["wrapped_client_secret"] = sources.wrap_client_secret(parts.vault, source_id, secret) if secret else None
    lifetime = timedelta(seconds=parts.settings.proposal_lifetime)
    with parts.database.transaction() as tx:
        return proposals.propose(tx, "bind_source", source_id, details, caller, clock(tx), lifetime=lifetime)


def propose_trust_mfa(
    tx: Transaction, caller: Caller, source_id: str, values: Sequence[str], now: datetime, *, lifetime: timedelta
) -> Proposal:
    """Propose to count a source's own second factor when it answers one of these values."""
    require_admin(caller)
    plain = [_plain(value, f"/values/{at}") for at, value in enumerate(values)]
    sources.active(tx, source_id)
    details = {"source_id": source_id, "mfa_values": plain}
    return proposals.propose(tx, "trust_source_mfa", source_id, details, caller, now, lifetime=lifetime)


def check_source(parts: Parts, caller: Caller, source_id: str) -> list[SourceFinding]:
    """Try a source as it is: its provider's metadata and keys, and whether it takes our client."""
    require_admin(caller)
    with parts.database.transaction() as tx:
        source = sources.active(tx, source_id)
    return try_source(parts.settings, login.client_of(parts, source))


def _plain(text: str, field: str) -> str:
    if not text.isascii() or any(character <= " " for character in text) or "\x7f" in text:
        raise Invalid("Enter plain text without spaces.", field=field)
    return text


@dataclass(frozen=True, slots=True)
class SourceFinding:
    """One thing that was tried: what, whether it is as it must be, and what was found."""

    what: What
    ok: bool
    told: str


# An admin's request waits for the provider: a few may, so that the rest of the portal has its threads.
_ENTRANCE = ConcurrencyLimit(
    _AT_ONCE,
    lambda: BackendDown(
        "Other sources are being tested now.", backend="identity_provider", advice="Try again in ten seconds."
    ),
)


def try_source(settings: Settings, client: OidcClient) -> list[SourceFinding]:
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


def require_usable(settings: Settings, client: OidcClient) -> list[SourceFinding]:
    """Refuse a source that would let nobody in, with what its provider says; else what was found.

    Raises:
        Invalid: naming the field that is wrong.
        BackendDown: others are tried at the moment.
    """
    found = try_source(settings, client)
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
    none = f"None of its {len(keys)} keys fits the algorithms that it signs ID tokens with."
    told = f"{usable} of its {len(keys)} keys can sign ID tokens." if usable else none
    return SourceFinding("keys", usable > 0, told)


def _client(providers: Providers, client: OidcClient, provider: Provider) -> SourceFinding:
    wrong = oidc.try_client(providers, client, provider)
    return SourceFinding("client", not wrong, wrong or "Its token endpoint does not refuse our client id and secret.")


def _userinfo(provider: Provider) -> SourceFinding:
    without = "It has no UserInfo: name, e-mail and required claims must be in the ID token."
    told = "Claims that its ID tokens lack are read from its UserInfo." if provider.userinfo_endpoint else without
    return SourceFinding("userinfo", True, told)
