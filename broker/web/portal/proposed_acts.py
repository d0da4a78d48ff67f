"""What a page says of acts about its subject that wait for a second person."""

from __future__ import annotations

from collections.abc import Sequence

from broker.registry import proposals
from broker.registry.naming import names_of
from broker.web.portal.forms import Context, PortalRequest

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
