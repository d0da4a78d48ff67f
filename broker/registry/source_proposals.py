"""Proposing sign-in sources, and trying them. They decide who somebody is, so binding one takes two admins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from broker.base import words
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.identity import login, source_check, sources
from broker.identity.caller import Caller
from broker.identity.oidc import OidcClient
from broker.identity.permissions import require_admin
from broker.identity.source_check import SourceFinding
from broker.models import Proposal
from broker.registry import proposals, vendors
from broker.runtime.parts import Parts


@dataclass(frozen=True, slots=True)
class NewSource:
    """A source to bind to a vendor, or (`vendor_id` None) to the organisation."""

    name: str
    issuer: str
    client_id: str
    client_secret: str | None
    required_claims: Mapping[str, str | int | bool]
    other_audiences: Sequence[str]
    vendor_id: str | None


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
    source_check.require(parts.settings, OidcClient(new.issuer, new.client_id, secret, login.callback(parts.settings)))
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
    return source_check.check(parts.settings, login.client_of(parts, source))


def _plain(text: str, field: str) -> str:
    if not text.isascii() or any(character <= " " for character in text) or "\x7f" in text:
        raise Invalid("Enter plain text without spaces.", field=field)
    return text
