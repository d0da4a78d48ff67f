"""A dataset's slices, for its owner, admins and auditors: where each lives, how it stands; taking one away."""

from __future__ import annotations

from broker.gate.simulation import slices_without_rule
from broker.kinds.discovery import kinds
from broker.registry import slices
from broker.registry.datasets import dataset, require_sees_binding
from broker.web.portal.dataset_wizard import condition_said
from broker.web.portal.forms import Context, PortalRequest, form, page
from broker.web.portal.proposed_acts import waiting_acts

PAGE = "/datasets/{slug}/slices"


@page(PAGE, template="describe/slices.html", live=(f"/live{PAGE}", "describe/slice_table.html"))
def all_slices(req: PortalRequest, slug: str) -> Context:
    """The slices of a dataset."""
    found = dataset(req.tx, req.caller, slug)
    require_sees_binding(req.caller, found)
    held = slices.slices_of(req.tx, [found.id])[found.id]
    return {
        "dataset": found,
        "slices": held,
        "names": [(item.name, item.name) for item in held],
        "conditions": {item.id: [condition_said(row) for row in item.binding.get("rows", [])] for item in held},
        "with_id": {item.id for item in held if kinds[item.kind].names_slices_by_id},
        "confirms": slices.may_confirm(req.tx, req.caller, found),
        "unreached": slices_without_rule(req.tx, req.parts.rulebook, found, held),
        "waiting": any(item.state == "registering" for item in held),
        **waiting_acts(req, [found.id]),
    }


@form(f"{PAGE}/{{name}}/retry", rerender=all_slices)
def retry(req: PortalRequest, slug: str, name: str) -> str:
    """Have one that failed registered again."""
    slices.retry_slice(req.tx, req.caller, slug, name, req.now)
    return PAGE.format(slug=slug)


@form(f"{PAGE}/{{name}}/confirm", rerender=all_slices)
def confirm(req: PortalRequest, slug: str, name: str) -> str:
    """Take one whose table has changed as it is now; its owner has looked."""
    slices.confirm_slice(req.tx, req.caller, slug, name, req.now)
    return PAGE.format(slug=slug)


@form(f"{PAGE}/{{name}}/fast", rerender=all_slices)
def fast(req: PortalRequest, slug: str, name: str) -> str:
    """Let guests' conditions be planned together with its row filter, or keep them apart again."""
    slices.set_fast(req.tx, req.caller, slug, name, req.now, fast=req.field("fast") == "yes")
    return PAGE.format(slug=slug)


@form(f"{PAGE}/retire", rerender=all_slices)
def retire(req: PortalRequest, slug: str) -> str:
    """Take one away; its leases end."""
    slices.retire_slice(req.tx, req.caller, slug, req.field("slice"), req.field("reason"), req.now)
    return PAGE.format(slug=slug)
