"""Who has access to a dataset and to whom it is offered, and what the gate would say to somebody, and why."""

from __future__ import annotations

from broker.base.errors import Forbidden, Invalid, NotFound
from broker.gate import explain
from broker.gate.facts import Ask
from broker.kinds.discovery import kinds
from broker.models import VENDOR_STATUSES
from broker.policies import ACTIONS, Decision
from broker.registry import datasets, vendors
from broker.registry.datasets import dataset, may_change
from broker.registry.naming import LONGEST, names_seen, person_meant
from broker.web.portal.form_submission import trouble_of
from broker.web.portal.forms import Context, PortalRequest, form, page

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
