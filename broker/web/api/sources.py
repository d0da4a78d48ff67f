"""`/sources`: where people sign in. Binding one, and trusting its second factor, take two admins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from broker.identity import faults, sources
from broker.identity.sources import SOURCES
from broker.models import Proposal, SignInSource
from broker.registry import source_proposals
from broker.registry.source_proposals import NewSource, SourceFinding
from broker.web.api.common import (
    At,
    CallerNow,
    FreshCaller,
    Id,
    Name,
    PartsNow,
    ProposalMade,
    Shown,
    Strict,
    VendorId,
    verb,
)
from broker.web.api.reading import add_list

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


class SourceChecked(BaseModel):
    """What a provider answered just now. `ok`: nothing stands in the way of signing in."""

    id: str
    ok: bool
    findings: list[SourceFinding]


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

    def new(self) -> NewSource:
        """The same, for the room that proposes it."""
        return NewSource(**self.model_dump(exclude={"vendor"}), vendor_id=self.vendor)


class MfaBody(Strict):
    """The `acr` or `amr` values by which this source says that it asked for a second factor itself."""

    values: Annotated[list[Text], Field(min_length=1, max_length=_MOST_VALUES, examples=[["phr"]])]


def sources_shown(at: At, rows: Sequence[SignInSource]) -> list[SourceShown]:
    """Sources, with the links to them and why the last sign-in failed."""
    failed, settings = faults.last_failures(at.tx, [row.id for row in rows]), at.parts.settings
    return [
        SourceShown.of(row, sign_in_link=sources.sign_in_link(settings, row.id), last_failure=failed.get(row.id))
        for row in rows
    ]


add_list(router, SOURCES, SourceShown, "Sign-in sources, newest first. For admins and auditors.", render=sources_shown)


@router.post("", operation_id="propose_source", status_code=202)
def propose_source(body: SourceBody, caller: FreshCaller, parts: PartsNow) -> ProposalMade:
    """Propose to bind a source to a vendor, or (`vendor` left out) to the organisation. For admins.

    Its provider is tried first: one that would let nobody in is refused with what it says.
    """
    return ProposalMade.model_validate(source_proposals.propose_source(parts, caller, body.new()))


@router.post("/{source_id}/check", operation_id="check_source")
def check_source(source_id: str, caller: CallerNow, parts: PartsNow) -> SourceChecked:
    """Try a source as it is: its provider's metadata and keys, and whether it takes our client. For admins."""
    found = source_proposals.check_source(parts, caller, source_id)
    return SourceChecked(id=source_id, ok=all(finding.ok for finding in found), findings=found)


@verb(router, "POST", "/{source_id}/trust-mfa", ProposalMade, status=202, fresh=True)
def propose_trust_mfa(at: At, source_id: str, body: MfaBody) -> Proposal:
    """Propose to count this source's own second factor when it answers one of these values. For admins."""
    return source_proposals.propose_trust_mfa(at.tx, at.caller, source_id, body.values, at.now, lifetime=at.lifetime)


@verb(router, "POST", "/{source_id}/disable", status=204)
def disable_source(at: At, source_id: str) -> None:
    """Close a source at once and end what was signed in through it. For admins."""
    sources.disable(at.tx, at.caller, source_id, at.now)
