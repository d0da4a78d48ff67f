"""Acts that wait for a second person: the list, one of them, approving and refusing; how other pages tell of them."""

from __future__ import annotations

from collections.abc import Sequence

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Invalid
from broker.registry import proposals
from broker.registry.naming import names_of
from broker.runtime import rulebook
from broker.web.api.proposals import PERFORMERS, ProposalShown, proposal_shown
from broker.web.portal.forms import Context, PortalRequest, form, page

ACTS = {
    "bind_source": "Add a sign-in source",
    "trust_source_mfa": "Trust a source's own second factor",
    "give_role": "Assign a role",
    "reset_factor": "Reset a person's second factor",
    "apply_policy": "Put rules in force",
    "change_dataset": "Change a dataset's owner, labels or retention",
    "add_slice": "Add a slice",
    "rotate_secret": "Replace a service's secret",
    "add_member": "Add a person to a team",
}


def waiting_acts(req: PortalRequest, subjects: Sequence[str]) -> Context:
    """What `parts/waiting_acts.html` shows."""
    found = proposals.waiting_on(req.tx, subjects, req.viewer.now)
    people = {text for item in found for text in (item.proposed_by, item.details.get("person")) if text}
    return {"proposed": found, "proposer": names_of(req.tx, people), "proposed_acts": ACTS}


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


@page("/proposals", template="admin/proposals.html")
def all_proposals(req: PortalRequest) -> Context:
    """What waits for a second person, oldest first; or what was decided."""
    decided, now = req.asked("show") == "decided", req.viewer.now
    window = req.window(oldest_first=not decided)
    found = proposals.list_proposals(req.tx, req.caller, window, now, decided=decided)
    shown = [proposal_shown(req.tx, item, req.caller, now) for item in found.items]
    return {"page": found, "proposals": shown, "acts": ACTS, "names": _names(req.tx, shown), "decided": decided}


@page("/proposals/{proposal_id}", template="admin/proposal.html")
def one_proposal(req: PortalRequest, proposal_id: str) -> Context:
    """One act: what exactly would happen, and who proposes it."""
    found = proposals.PROPOSALS.one(req.tx, req.caller, proposal_id)
    shown = proposal_shown(req.tx, found, req.caller, req.viewer.now)
    return {
        "proposal": shown,
        "meaning": MEANING[shown.act],
        "difference": _difference(req, shown),
        "acts": ACTS,
        "who_else": proposals.who_else(shown.act),
        "names": _names(req.tx, [shown]),
    }


@form("/proposals/{proposal_id}/approve", rerender=one_proposal)
def approve(req: PortalRequest, proposal_id: str) -> str:
    """Agree; it happens at once."""
    proposals.approve(req.tx, proposal_id, req.caller, req.now, PERFORMERS)
    return f"/proposals/{proposal_id}"


@form("/proposals/{proposal_id}/refuse", rerender=one_proposal, needs=None)
def refuse(req: PortalRequest, proposal_id: str) -> str:
    """Turn it down, or take one's own back."""
    proposals.refuse(req.tx, proposal_id, req.caller, words.prose(req.field("reason"), "/reason"), req.now)
    return f"/proposals/{proposal_id}"


def _difference(req: PortalRequest, shown: ProposalShown) -> tuple[list[str], list[str]] | None:
    """The rules that would go and come, against those in force now; None for other acts and decided ones."""
    if shown.act != "apply_policy" or shown.state != "pending":
        return None
    try:
        proposed = rulebook.check(str(shown.details["rules"]), str(shown.details["networks"]))
    except Invalid:
        # Approving it will say what is wrong.
        return None
    current = req.parts.rulebook.at(req.tx, rulebook.in_force(req.tx).number)
    removed, added = current.diff(proposed) if current else ((), proposed.rules)
    return [str(rule) for rule in removed], [str(rule) for rule in added]


def _names(tx: Transaction, shown: list[ProposalShown]) -> dict[str, str]:
    """What a proposal mentions is called, by id."""
    ids = {text for item in shown for text in (item.subject, item.proposed_by, item.decided_by) if text}
    ids |= {value for item in shown for value in item.details.values() if isinstance(value, str)}
    ids |= {value for item in shown for value in item.details.get("datasets", [])}
    return names_of(tx, ids)
