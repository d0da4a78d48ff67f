"""Acts that wait for a second person: the list, one of them, agreeing and turning down."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import not_
from starlette.responses import Response

from broker.base import words
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.paging import Window, page
from broker.models import Proposal
from broker.registry import proposals
from broker.registry.naming import names_of
from broker.runtime import rulebook
from broker.web.api.proposals import ProposalShown, proposal_shown
from broker.web.performers import PERFORMERS
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.proposed_acts import ACTS
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
MEANING = {
    "bind_source": "People who sign in there with these claims can join this party, if they have an invitation.",
    "trust_source_mfa": "Guestkey will accept a second factor that was checked by this identity provider.",
    "give_role": "An admin can change everything here; an auditor can see everything.",
    "reset_factor": "Their passkeys and apps stop working and sessions end. A one-time link lets them add new ones.",
    "apply_policy": "These rules apply once approved. Live credentials that no longer qualify end within a minute.",
    "change_dataset": "The owner decides who gets access; rules use labels. Credentials that no longer qualify end.",
    "add_slice": "People with a grant on the dataset can read the slice if a rule allows their role.",
    "rotate_secret": "The person who proposed it can get the secret for an hour, and read what the service can read.",
    "add_member": "They can then use the team's grants.",
}


@router.get("/proposals")
def all_proposals(viewer: MemberNow, cursor: str | None = None, show: str = "open") -> HTMLResponse:
    """What waits for a second person, oldest first; or what was decided."""
    waits = (Proposal.state == "pending") & (Proposal.lapses_at > viewer.now)
    with viewer.parts.database.transaction() as tx:
        query = proposals.PROPOSALS.query(tx, viewer.caller).where(not_(waits) if show == "decided" else waits)
        found = page(tx, query, Proposal.id, Window(cursor, oldest_first=show != "decided"))
        shown = [proposal_shown(tx, item, viewer.caller, viewer.now) for item in found.items]
        return render(
            "admin/proposals.html",
            viewer=viewer,
            page=found,
            proposals=shown,
            acts=ACTS,
            names=_names(tx, shown),
            decided=show == "decided",
        )


@router.get("/proposals/{proposal_id}")
def one_proposal(proposal_id: str, viewer: MemberNow) -> HTMLResponse:
    """One act: what exactly would happen, and who proposes it."""
    return _page(Setback(viewer), proposal_id, "", {})


@router.post("/proposals/{proposal_id}/approve")
def approve(proposal_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Agree; it happens at once."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            proposals.approve(tx, proposal_id, viewer.caller, clock(tx), PERFORMERS)
        return go(f"/proposals/{proposal_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, proposal_id, "approve", sent), needs=fresh)


@router.post("/proposals/{proposal_id}/refuse")
def refuse(proposal_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Turn it down, or take one's own back."""

    def do(viewer: Viewer) -> Response:
        reason = words.prose(sent.get("reason", ""), "/reason")
        with viewer.parts.database.transaction() as tx:
            proposals.refuse(tx, proposal_id, viewer.caller, reason, clock(tx))
        return go(f"/proposals/{proposal_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, proposal_id, "refuse", sent))


def _page(setback: Setback, proposal_id: str, asked_for: str, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        shown = proposal_shown(tx, proposals.PROPOSALS.one(tx, viewer.caller, proposal_id), viewer.caller, viewer.now)
        return render(
            "admin/proposal.html",
            viewer=viewer,
            status=setback.status if setback.trouble or setback.panel else 200,
            trouble=setback.trouble,
            panel=setback.panel,
            asked_for=asked_for,
            filled=filled,
            proposal=shown,
            meaning=MEANING[shown.act],
            difference=_difference(tx, viewer, shown),
            acts=ACTS,
            who_else=proposals.who_else(shown.act),
            names=_names(tx, [shown]),
        )


def _difference(tx: Transaction, viewer: Viewer, shown: ProposalShown) -> tuple[list[str], list[str]] | None:
    """The rules that would go and come, against those in force now; None for other acts and decided ones."""
    if shown.act != "apply_policy" or shown.state != "pending":
        return None
    try:
        proposed = rulebook.check(str(shown.details["rules"]), str(shown.details["networks"]))
    except Invalid:
        # Approving it will say what is wrong.
        return None
    current = viewer.parts.rulebook.at(tx, rulebook.in_force(tx).number)
    removed, added = current.diff(proposed) if current else ((), proposed.rules)
    return [str(rule) for rule in removed], [str(rule) for rule in added]


def _names(tx: Transaction, shown: list[ProposalShown]) -> dict[str, str]:
    """What a proposal mentions is called, by id."""
    ids = {text for item in shown for text in (item.subject, item.proposed_by, item.decided_by) if text}
    ids |= {value for item in shown for value in item.details.values() if isinstance(value, str)}
    ids |= {value for item in shown for value in item.details.get("datasets", [])}
    return names_of(tx, ids)
