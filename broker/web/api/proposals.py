"""`/proposals`: acts that wait for a second admin."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter

from broker.base import words
from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.identity.factors import reset_factor
from broker.identity.sources import bind_source, trust_source_mfa
from broker.models import Proposal
from broker.registry import proposals
from broker.registry.datasets import perform_change
from broker.registry.people import perform_give_role
from broker.registry.proposals import PROPOSALS, Performer
from broker.registry.services import perform_rotation
from broker.registry.slices import perform_add
from broker.registry.teams import perform_join
from broker.runtime.rulebook import apply_policy
from broker.web.api.common import At, ReasonBody, Shown, verb
from broker.web.api.reading import add_list, add_show

# What each two-person act does once a second person agreed.
PERFORMERS: Mapping[str, Performer] = {
    "bind_source": bind_source,
    "trust_source_mfa": trust_source_mfa,
    "give_role": perform_give_role,
    "reset_factor": reset_factor,
    "apply_policy": apply_policy,
    "change_dataset": perform_change,
    "add_slice": perform_add,
    "rotate_secret": perform_rotation,
    "add_member": perform_join,
}


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


def _shown(at: At, item: Proposal) -> ProposalShown:
    return proposal_shown(at.tx, item, at.caller, at.now)


add_list(
    router,
    PROPOSALS,
    ProposalShown,
    "Proposals, newest first. For admins and auditors; for owners those about their datasets.",
    render=lambda at, rows: [_shown(at, row) for row in rows],
)
add_show(
    router,
    PROPOSALS,
    ProposalShown,
    "One proposal. For admins and auditors, and owners of what it is about.",
    render=_shown,
)


@verb(
    router,
    "POST",
    "/{proposal_id}/approve",
    ProposalShown,
    fresh=True,
    command=("proposal approve", "Proposal {id} approved and carried out."),
)
def approve_proposal(at: At, proposal_id: str) -> ProposalShown:
    """Approve another person's proposal; it is carried out at once. For another admin, or the owner concerned."""
    return _shown(at, proposals.approve(at.tx, proposal_id, at.caller, at.now, PERFORMERS))


@verb(router, "POST", "/{proposal_id}/refuse", ProposalShown, command=("proposal refuse", "Proposal {id} refused."))
def refuse_proposal(at: At, proposal_id: str, body: ReasonBody) -> ProposalShown:
    """Refuse a proposal, or withdraw your own. For admins, and owners of what it is about."""
    return _shown(at, proposals.refuse(at.tx, proposal_id, at.caller, words.prose(body.reason, "/reason"), at.now))


def proposal_shown(tx: Transaction, item: Proposal, caller: Caller, now: datetime) -> ProposalShown:
    """A proposal, as this caller may see it; a client secret never."""
    pending = item.state == "pending" and item.lapses_at > now
    state: Any = item.state if item.state != "pending" or pending else "lapsed"
    return ProposalShown.of(
        item,
        details=_details(item.details),
        state=state,
        may_approve=pending and proposals.may_decide(tx, item, caller),
        somebody_may_approve=pending and proposals.others_to_decide(tx, item, now),
    )


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in details.items() if name != _HIDDEN}
    return shown | ({"has_client_secret": details[_HIDDEN] is not None} if _HIDDEN in details else {})
