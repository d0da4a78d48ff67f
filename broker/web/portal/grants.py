"""Grants: the list, one of them with the leases it carries, giving one without a request, and ending one."""

from __future__ import annotations

from broker.base.errors import Invalid
from broker.base.paging import Page, Window
from broker.gate.simulation import roles_reaching
from broker.leases import holdings
from broker.models import Grant
from broker.registry.datasets import DATASETS, dataset
from broker.registry.naming import LONGEST, names_seen, person_meant
from broker.registry.slices import slices_of
from broker.requests import bulk_grants
from broker.web.api.grants import grants_shown
from broker.web.api.leases import leases_shown
from broker.web.portal.forms import Context, PortalRequest, Trouble, act, form, page, trouble_of

_MOST_DATASETS = 500
_FIELDS = ("dataset", "role", "slice", "purpose", "until")


@page("/grants", template="owner/grants.html")
def all_grants(req: PortalRequest) -> Context:
    """Grants, newest first, narrowed by what the address says."""
    state = req.asked("state") or "current"
    asked = {"dataset": req.asked("dataset")[:64], "person": req.asked("person")[:LONGEST], "state": state}
    found: Page[Grant] = Page(items=[], next_cursor=None)
    trouble: Trouble | None = None
    try:
        whom = person_meant(req.tx, req.caller, asked["person"])
        wanted = state if state in ("current", "ended") else None
        found = holdings.GRANTS.page(
            req.tx, req.caller, req.window(), dataset=asked["dataset"] or None, person=whom, state=wanted
        )
        asked["person"] = whom or ""
    except Invalid as error:
        trouble = trouble_of(error)
    return {
        "trouble": trouble,
        "page": found,
        "grants": grants_shown(req.tx, found.items),
        "asked": asked,
        "names": names_seen(req.tx, req.caller, [asked["person"]]),
    }


@page("/grants/new", template="owner/new_grant.html")
def new_grant(req: PortalRequest) -> Context:
    """The form: first the dataset, then who is to hold what on it."""
    bulk_grants.require_giver(req.caller)
    filled = req.prefilled("dataset")
    known = DATASETS.page(req.tx, req.caller, Window(limit=_MOST_DATASETS), status="active").items
    shown = {"filled": filled, "datasets": sorted((item.slug, item.title) for item in known), "dataset": None}
    if not filled.get("dataset"):
        return shown
    of = dataset(req.tx, req.caller, filled["dataset"])
    return {
        **shown,
        "dataset": of,
        "holders": bulk_grants.possible_holders(req.tx, req.caller, of),
        "roles": roles_reaching(req.tx, req.parts.rulebook, of.slug, of.labels),
        "slices": [item.name for item in slices_of(req.tx, [of.id])[of.id]],
    }


@form("/grants/new", rerender=new_grant)
def give(req: PortalRequest) -> str:
    """Give it."""
    kind, _, id_ = req.field("holder").partition(":")
    fields = {name: req.field(name) for name in _FIELDS} | ({kind: id_} if kind in ("person", "team") else {})
    return f"/grants/{bulk_grants.give(req.parts, req.tx, req.caller, fields, req.now).id}"


@page("/grants/{grant_id}", template="grant.html")
def one_grant(req: PortalRequest, grant_id: str) -> Context:
    """One grant: what it lets its holder do, until when, and the leases it carries."""
    found = holdings.grant(req.tx, req.caller, grant_id)
    held = holdings.LEASES.page(req.tx, req.caller, Window(limit=100), dataset=found.dataset_id)
    shown = grants_shown(req.tx, [found])[0]
    return {
        "grant": shown,
        "leases": leases_shown(req.tx, [lease for lease in held.items if lease.grant_id == grant_id]),
        "may_end": holdings.may_end(req.tx, req.caller, found),
        "may_use": shown.state == "current" and holdings.may_use(req.caller, found),
    }


act("/grants/{grant_id}/revoke", holdings.revoke_grant, "reason", rerender=one_grant, needs=None)
