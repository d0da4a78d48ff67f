"""`/sources`: where people sign in. Binding one, and trusting its second factor, take two admins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from broker.base import words
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.identity import login, source_check, source_failures, sources
from broker.identity.oidc import Client
from broker.identity.permissions import require_admin
from broker.identity.source_check import Finding
from broker.identity.sources import SOURCES
from broker.models import Proposal, SignInSource
from broker.registry import proposals, vendors
from broker.web.api.common import CallerNow, FreshCaller, Id, Name, PartsNow, VendorId
from broker.web.api.reading import add_list
from broker.web.api.verbs import At, verb
from broker.web.proposed import ProposalMade, lifetime_of
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/sources", tags=["sources"])
_MOST_VALUES = 10
Text = Annotated[str, Field(min_length=1, max_length=500)]


class Failure(Shown):
    """Why the last sign-in there failed, and how often in a row for that reason. Parts of it the provider said."""

    at: datetime
    why: str
    times: int


class SourceShown(Shown):
    """A sign-in source. `sign_in_link` is what its people open or bookmark: no page lists vendors' sources."""

    id: str
    name: str
    issuer: str
    client_id: str
    required_claims: dict[str, str | int | bool]
    vendor: VendorId
    trusts_mfa: bool
    mfa_values: list[str]
    other_audiences: list[str]
    status: str
    created_at: datetime
    sign_in_link: str
    last_failure: Failure | None


class Checked(BaseModel):
    """What a provider answered just now. `ok`: nothing stands in the way of signing in."""

    id: str
    ok: bool
    findings: list[Finding]


class SourceBody(Strict):
    """A source to bind. Every required claim must be told, with exactly this value or in its list.

    It is told in the ID token or, where that lacks it, in UserInfo.
    """

    name: Name
    issuer: Annotated[str, Field(min_length=1, max_length=500, examples=["https://login.acme.example"])]
    client_id: Text
    client_secret: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    required_claims: Annotated[
        dict[str, str | int | bool], Field(default_factory=dict, examples=[{"hd": "acme.example"}])
    ]
    other_audiences: Annotated[
        list[Text],
        Field(
            default_factory=list,
            description="Other client ids its ID tokens may have as audience, if `azp` names this client.",
        ),
    ]
    vendor: Id | None = None


class MfaBody(Strict):
    """The `acr` or `amr` values by which this source says that it asked for a second factor itself."""

    values: Annotated[list[Text], Field(min_length=1, max_length=_MOST_VALUES, examples=[["phr"]])]


def sources_shown(at: At, rows: Sequence[SignInSource]) -> list[SourceShown]:
    """Sources, with the links to them and why the last sign-in failed."""
    failed, public_url = (
        source_failures.last_failures(at.tx, [row.id for row in rows]),
        str(at.parts.settings.public_url).rstrip("/"),
    )
    return [
        SourceShown.of(row, sign_in_link=f"{public_url}/sign-in/{row.id}", last_failure=failed.get(row.id))
        for row in rows
    ]


add_list(router, SOURCES, SourceShown, "Sign-in sources, newest first. For admins and auditors.", render=sources_shown)


@router.post("", operation_id="propose_source", status_code=202)
def propose_source(body: SourceBody, caller: FreshCaller, parts: PartsNow) -> ProposalMade:
    """Propose to bind a source to a vendor, or (`vendor` left out) to the organisation. For admins.

    Its provider is tried first: one that would let nobody in is refused with what it says.
    """
    require_admin(caller)
    source_id = sources.new_source_id()
    details = {
        "id": source_id,
        "name": words.name(body.name, "/name"),
        "issuer": sources.check_issuer(body.issuer),
        "client_id": _plain(body.client_id, "/client_id"),
        "required_claims": sources.check_claims(body.required_claims),
        "other_audiences": sources.check_audiences(body.other_audiences, body.client_id),
        "vendor_id": body.vendor,
    }
    with parts.database.transaction() as tx:
        if body.vendor is not None:
            vendors.vendor(tx, caller, body.vendor)
        sources.check_alone(tx, body.issuer, body.client_id, body.required_claims)
    client = Client(body.issuer, body.client_id, body.client_secret, login.callback(parts.settings))
    source_check.require(parts.settings, client)
    # Wrapped before it is kept anywhere, a proposal included; bound to the id the source will have.
    secret = body.client_secret
    details["wrapped_client_secret"] = sources.wrap_client_secret(parts.vault, source_id, secret) if secret else None
    with parts.database.transaction() as tx:
        lifetime = lifetime_of(parts)
        made = proposals.propose(tx, "bind_source", source_id, details, caller, clock(tx), lifetime=lifetime)
    return ProposalMade.model_validate(made)


@router.post("/{source_id}/check", operation_id="check_source")
def check_source(source_id: str, caller: CallerNow, parts: PartsNow) -> Checked:
    """Try a source as it is: its provider's metadata and keys, and whether it takes our client. For admins."""
    require_admin(caller)
    with parts.database.transaction() as tx:
        source = sources.active(tx, source_id)
    found = source_check.check(parts.settings, login.client_of(parts, source))
    return Checked(id=source.id, ok=all(finding.ok for finding in found), findings=list(found))


@verb(router, "POST", "/{source_id}/trust-mfa", ProposalMade, status=202, fresh=True)
def propose_trust_mfa(at: At, source_id: str, body: MfaBody) -> Proposal:
    """Propose to count this source's own second factor when it answers one of these values. For admins."""
    require_admin(at.caller)
    values = [_plain(value, f"/values/{place}") for place, value in enumerate(body.values)]
    sources.active(at.tx, source_id)
    details = {"source_id": source_id, "mfa_values": values}
    return proposals.propose(at.tx, "trust_source_mfa", source_id, details, at.caller, at.now, lifetime=at.lifetime)


@verb(router, "POST", "/{source_id}/disable", status=204)
def disable_source(at: At, source_id: str) -> None:
    """Close a source at once and end what was signed in through it. For admins."""
    sources.disable(at.tx, at.caller, source_id, at.now)


def _plain(text: str, field: str) -> str:
    if not text.isascii() or any(character <= " " for character in text) or "\x7f" in text:
        raise Invalid("Enter plain text without spaces.", field=field)
    return text
