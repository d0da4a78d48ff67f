"""`/proposals`: acts that wait for a second admin."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from broker.base import words
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.paging import matching, page
from broker.identity.caller import Caller
from broker.models import Proposal
from broker.registry import proposals
from broker.web.api.common import CallerNow, FreshCaller, PartsNow, Reason, WindowNow
from broker.web.performers import PERFORMERS
from broker.web.validation import Shown

router = APIRouter(prefix="/proposals", tags=["proposals"])
State = Literal["pending", "approved", "refused", "lapsed"]
_HIDDEN = "wrapped_client_secret"


class ProposalShown(Shown):
    """An act and who stands for it. `may_approve` says whether you could be the second.

    `somebody_may_approve`: whether anybody beside the proposer could be, as people and their roles are now.
    """

    id: str
    act: str
    subject: str
    details: dict[str, Any]
    state: State
    proposed_by: str
    created_at: datetime
    lapses_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    reason: str
    may_approve: bool
    somebody_may_approve: bool


class Proposals(BaseModel):
    """A page of proposals."""

    items: list[ProposalShown]
    next_cursor: str | None


@router.get("", operation_id="list_proposals")
def list_proposals(
    caller: CallerNow, parts: PartsNow, window: WindowNow, state: Annotated[State | None, Query()] = None
) -> Proposals:
    """Proposals, newest first. For admins and auditors; for owners those about their datasets."""
    with parts.database.transaction() as tx:
        query = proposals.seen_by(tx, caller).where(*matching((Proposal.state, state)))
        found, now = page(tx, query, Proposal.id, window), clock(tx)
        shown = [proposal_shown(tx, item, caller, now) for item in found.items]
    return Proposals(items=shown, next_cursor=found.next_cursor)


@router.get("/{proposal_id}", operation_id="show_proposal")
def show_proposal(proposal_id: str, caller: CallerNow, parts: PartsNow) -> ProposalShown:
    """One proposal. For admins and auditors, and owners of what it is about."""
    with parts.database.transaction() as tx:
        return proposal_shown(tx, proposals.find(tx, proposal_id, caller), caller, clock(tx))


@router.post("/{proposal_id}/approve", operation_id="approve_proposal")
def approve_proposal(proposal_id: str, caller: FreshCaller, parts: PartsNow) -> ProposalShown:
    """Agree, and let it happen at once. For another admin than the proposer, or the owner of what it is about."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        return proposal_shown(tx, proposals.approve(tx, proposal_id, caller, now, PERFORMERS), caller, now)


@router.post("/{proposal_id}/refuse", operation_id="refuse_proposal")
def refuse_proposal(proposal_id: str, body: Reason, caller: CallerNow, parts: PartsNow) -> ProposalShown:
    """Turn it down, or take back your own. For admins, and owners of what it is about."""
    reason = words.prose(body.reason, "/reason")
    with parts.database.transaction() as tx:
        now = clock(tx)
        return proposal_shown(tx, proposals.refuse(tx, proposal_id, caller, reason, now), caller, now)


def proposal_shown(tx: Transaction, item: Proposal, caller: Caller, now: datetime) -> ProposalShown:
    """A proposal, as this caller may see it; a client secret never."""
    pending = item.state == "pending" and item.lapses_at > now
    state: Any = item.state if item.state != "pending" or pending else "lapsed"
    return ProposalShown(
        id=item.id,
        act=item.act,
        subject=item.subject,
        details=_details(item.details),
        state=state,
        proposed_by=item.proposed_by,
        created_at=item.created_at,
        lapses_at=item.lapses_at,
        decided_by=item.decided_by,
        decided_at=item.decided_at,
        reason=item.reason,
        may_approve=pending and proposals.may_decide(tx, item, caller),
        somebody_may_approve=pending and proposals.others_to_decide(tx, item, now),
    )


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in details.items() if name != _HIDDEN}
    return shown | ({"has_client_secret": details[_HIDDEN] is not None} if _HIDDEN in details else {})
