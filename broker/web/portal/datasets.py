"""Datasets: those one may see, one of them, changing it, its slices, who has access, and why somebody has not."""

from __future__ import annotations

from datetime import UTC, datetime, time

from broker.base.errors import Forbidden, Invalid, NotFound
from broker.gate import explain
from broker.gate.explain import slices_without_rule
from broker.gate.facts import Ask
from broker.kinds.discovery import kinds
from broker.models import DATASET_STATUSES, VENDOR_STATUSES, Dataset, Proposal
from broker.policies import ACTIONS, Decision
from broker.registry import datasets, people, slices, vendors
from broker.registry.datasets import (
    DATASETS,
    DatasetChange,
    change_dataset,
    dataset,
    may_change,
    require_owner_or_admin,
    require_sees_binding,
    sees_binding,
)
from broker.registry.naming import LONGEST, names_of, names_seen, person_meant
from broker.web.api.common import lifetime_of
from broker.web.api.datasets import dataset_full, datasets_shown
from broker.web.portal.auditing import history
from broker.web.portal.dataset_wizard import condition_said
from broker.web.portal.forms import Context, PortalRequest, act, form, page, trouble_of
from broker.web.portal.proposals import waiting_acts
from broker.web.portal.suspending import resuming


@page("/datasets", template="datasets.html")
def all_datasets(req: PortalRequest) -> Context:
    """Every dataset the person may see; to vendors' people those they could use."""
    wanted = req.asked("status") if req.asked("status") in DATASET_STATUSES else None
    found = DATASETS.page(req.tx, req.caller, req.window(), status=wanted if req.viewer.inside else "active")
    return {"page": found, "datasets": datasets_shown(req.tx, found.items), "chosen": wanted or ""}


@page("/datasets/{slug}", template="dataset.html")
def one_dataset(req: PortalRequest, slug: str) -> Context:
    """One dataset: what it is, its slices, and the roles one can ask for."""
    found = dataset(req.tx, req.caller, slug)
    shown = dataset_full(req.parts, req.tx, req.caller, found)
    insight = sees_binding(req.caller, found)
    return {
        "dataset": shown,
        "owner": names_of(req.tx, [shown.owner]).get(shown.owner, "") if shown.owner else "",
        "vendors": names_of(req.tx, [offer.vendor for offer in shown.offers]),
        "insight": insight,
        "tends": may_change(req.caller, found),
        "history": history(req, "dataset", found.id) if insight else None,
        **waiting_acts(req, [found.id] if insight else []),
    }


act("/datasets/{slug}/resume", resuming("dataset"), "reason", rerender=one_dataset)


@page("/datasets/{slug}/change", template="owner/change_dataset.html")
def change_page(req: PortalRequest, slug: str) -> Context:
    """The form, filled with what the dataset is now."""
    found = dataset(req.tx, req.caller, slug)
    require_owner_or_admin(req.caller, found)
    others = people.choices(req.tx)
    owners = [item for item in others.items() if item[0] != req.caller.id or item[0] == found.owner_id]
    if found.owner_id not in dict(owners):
        owners.insert(0, ("", "No change" if found.owner_id else "None yet: admins decide"))
    now = {
        "title": found.title,
        "description": found.description,
        "labels": ", ".join(found.labels),
        "owner": found.owner_id or "",
        "kept_until": found.retention_until.date().isoformat() if found.retention_until else "",
    }
    return {"dataset": found, "filled": req.sent or now, "owners": owners}


@form("/datasets/{slug}/change", rerender=change_page)
def change(req: PortalRequest, slug: str) -> str:
    """Change what is different from now; what takes two becomes a proposal."""
    asked = _different(req, dataset(req.tx, req.caller, slug))
    changed = change_dataset(req.tx, req.caller, slug, asked, req.now, lifetime=lifetime_of(req.parts))
    return f"/proposals/{changed.id}" if isinstance(changed, Proposal) else f"/datasets/{slug}"


def _different(req: PortalRequest, found: Dataset) -> DatasetChange:
    """What the form says otherwise than the records; what it does not hold stays."""
    title, description = req.field("title").strip(), req.field("description").strip()
    labels = req.field("labels").replace(",", " ").split()
    owner, until = req.field("owner"), _end_of_day(req.field("kept_until").strip())
    kept = found.retention_until.date() if found.retention_until else None
    return DatasetChange(
        title=title if title != found.title else None,
        description=description if description != found.description else None,
        labels=tuple(labels) if set(labels) != set(found.labels) else None,
        owner_id=owner if owner not in ("", found.owner_id) else None,
        retention_until=until if until and until.date() != kept else None,
        forever=until is None and kept is not None,
    )


def _end_of_day(text: str) -> datetime | None:
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time(23, 59, 59), UTC) if text else None
    except ValueError:
        raise Invalid("Enter a day like 2030-12-31.", field="/kept_until") from None


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


act(f"{PAGE}/{{name}}/retry", slices.retry_slice, rerender=all_slices, then=PAGE)
# Its owner has looked at the table as it is now.
act(f"{PAGE}/{{name}}/confirm", slices.confirm_slice, rerender=all_slices, then=PAGE)
act(f"{PAGE}/retire", slices.retire_slice, "slice", "reason", rerender=all_slices)


@form(f"{PAGE}/{{name}}/fast", rerender=all_slices)
def fast(req: PortalRequest, slug: str, name: str) -> str:
    """Let guests' conditions be planned together with its row filter, or keep them apart again."""
    slices.set_fast(req.tx, req.caller, slug, name, req.now, fast=req.field("fast") == "yes")
    return PAGE.format(slug=slug)


_OFFERABLE = tuple(status for status in VENDOR_STATUSES if status != "offboarded")
_FIELDS = ("dataset", "person", "slice", "kind", "action")


@page("/datasets/{slug}/who", template="owner/who.html")
def who(req: PortalRequest, slug: str) -> Context:
    """Who may reach a dataset now, and to whom it is offered."""
    found = dataset(req.tx, req.caller, slug)
    offered = {item.vendor_id for item in datasets.offers_of(req.tx, req.caller, found)}
    known = vendors.choices(req.tx, _OFFERABLE)
    return {
        "dataset": found,
        "reaching": explain.who_has_access(req.parts, req.tx, req.caller, found.id),
        "offered": [vendor for vendor in known if vendor[0] in offered],
        "others": [vendor for vendor in known if vendor[0] not in offered],
        "may_offer": may_change(req.caller, found),
    }


@form("/datasets/{slug}/offers", rerender=who)
def offer(req: PortalRequest, slug: str) -> str:
    """Show a dataset to a vendor, or take it out of its sight."""
    if withdrawn := req.field("withdraw"):
        datasets.withdraw_offer(req.tx, req.caller, slug, withdrawn, req.now)
    else:
        datasets.make_offer(req.tx, req.caller, slug, req.field("vendor"), req.now)
    return f"/datasets/{slug}/who"


@page("/why", template="owner/why.html")
def why(req: PortalRequest) -> Context:
    """What the gate would say to somebody now, by which rule, and who can change it. Issues nothing."""
    asked = {name: req.asked(name)[:LONGEST] for name in _FIELDS}
    asked["action"] = asked["action"] or "read"
    shown: Context = {"decision": None, "line": None, "waiting": None, "trouble": None}
    try:
        asked["person"] = person_meant(req.tx, req.caller, asked["person"]) or ""
        if asked["dataset"]:
            dataset(req.tx, req.caller, asked["dataset"])
            shown |= _decided(req, asked)
    except (NotFound, Forbidden, Invalid) as error:
        shown["trouble"] = trouble_of(error)
    return {
        **shown,
        "asked": asked,
        "names": names_seen(req.tx, req.caller, [asked["person"]]),
        "theirs": asked["person"] not in ("", req.caller.id),
        "kinds": [("", "Any"), *((name, name) for name in sorted(kinds))],
        "actions": [(name, name) for name in ACTIONS],
        "grant": {"dataset": asked["dataset"]},
    }


def _decided(req: PortalRequest, asked: dict[str, str]) -> Context:
    ask = Ask(asked["dataset"], asked["action"], asked["slice"] or None, asked["kind"] or None)
    whom = asked["person"] or None
    decision = explain.explain_access(req.parts, req.tx, req.caller, ask, person_id=whom)
    return {
        "decision": decision,
        "line": _line(req, decision),
        "waiting": explain.pending_request(req.tx, req.caller, asked["dataset"], person_id=whom),
    }


def _line(req: PortalRequest, decision: Decision) -> int | None:
    """The line of the rule that spoke, in the rules as they were put in force."""
    rules = req.parts.rulebook.at(req.tx, decision.revision)
    return next((rule.line for rule in rules.rules if str(rule) in decision.rules), None) if rules else None
