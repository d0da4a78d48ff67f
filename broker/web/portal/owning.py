"""For data owners and admins: taking in vendors, offering datasets, grants, who may reach what, and why not."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import Forbidden, GuestkeyError, Invalid, NotFound
from broker.base.paging import Page, Window
from broker.gate import explain
from broker.gate.facts import Ask
from broker.identity.permissions import require_admin
from broker.kinds.discovery import kinds
from broker.leases.holdings import GRANTS
from broker.models import Dataset, Grant, Vendor
from broker.policies import ACTIONS, Decision
from broker.registry import offers, vendors
from broker.registry.datasets import dataset as dataset_seen
from broker.registry.datasets import require_owner_or_admin
from broker.registry.naming import LONGEST, names_seen, person_meant
from broker.web.api.holding_shapes import grants_shown
from broker.web.portal.acting import Setback, act, fresh, go, trouble_of
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()


@router.get("/vendors/new")
def new_vendor(viewer: MemberNow) -> HTMLResponse:
    """The form that takes in a vendor."""
    return _new_vendor(Setback(viewer), {})


@router.post("/vendors/new")
def add_vendor(viewer: MemberNow, sent: Sent) -> Response:
    """Take in a vendor, and go on to its page."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            made = vendors.add_vendor(tx, viewer.caller, sent.get("name", ""), clock(tx))
        return go(f"/vendors/{made.id}")

    return act(viewer, sent, do, lambda back: _new_vendor(back, sent), needs=fresh)


@router.get("/datasets/{slug}/who")
def who(slug: str, viewer: MemberNow) -> HTMLResponse:
    """Who may reach a dataset now, and to whom it is offered."""
    return _who_page(Setback(viewer), slug, {})


@router.post("/datasets/{slug}/offers")
def offer(slug: str, viewer: MemberNow, sent: Sent) -> Response:
    """Show a dataset to a vendor, or take it out of its sight."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            if withdrawn := sent.get("withdraw"):
                offers.withdraw_offer(tx, viewer.caller, slug, withdrawn, clock(tx))
            else:
                offers.make_offer(tx, viewer.caller, slug, sent.get("vendor", ""), clock(tx))
        return go(f"/datasets/{slug}/who")

    return act(viewer, sent, do, lambda back: _who_page(back, slug, sent), needs=fresh)


@router.get("/grants")
def grants(
    viewer: MemberNow, cursor: str | None = None, dataset: str = "", person: str = "", state: str = "current"
) -> HTMLResponse:
    """Grants, newest first, narrowed by what the address says."""
    asked = {"dataset": dataset.strip()[:64], "person": person.strip()[:LONGEST], "state": state}
    page: Page[Grant] = Page(items=[], next_cursor=None)
    trouble = None
    with viewer.parts.database.transaction() as tx:
        try:
            whom = person_meant(tx, viewer.caller, asked["person"])
            wanted = state if state in ("current", "ended") else None
            narrowed = {"dataset": asked["dataset"] or None, "person": whom, "state": wanted}
            page = GRANTS.page(tx, viewer.caller, Window(cursor), **narrowed)
            asked["person"] = whom or ""
        except Invalid as error:
            trouble = trouble_of(error)
        found = grants_shown(tx, list(page.items))
        names = names_seen(tx, viewer.caller, [asked["person"]])
    return render(
        "owner/grants.html",
        viewer=viewer,
        status=trouble.status if trouble else 200,
        trouble=trouble,
        page=page,
        grants=found,
        asked=asked,
        names=names,
    )


@router.get("/why")
def why(request: Request, viewer: MemberNow) -> HTMLResponse:
    """What the gate would say to somebody now, by which rule, and who can change it. Issues nothing."""
    fields = ("dataset", "person", "slice", "kind", "action")
    asked = {name: request.query_params.get(name, "").strip()[:LONGEST] for name in fields}
    asked = {**asked, "action": asked["action"] or "read"}
    decision, line, trouble, waiting = None, None, None, None
    with viewer.parts.database.transaction() as tx:
        try:
            asked["person"] = person_meant(tx, viewer.caller, asked["person"]) or ""
            if asked["dataset"]:
                dataset_seen(tx, viewer.caller, asked["dataset"])
        except (NotFound, Invalid) as error:
            trouble = trouble_of(error)
        names = names_seen(tx, viewer.caller, [asked["person"]])
    if asked["dataset"] and trouble is None:
        ask = Ask(asked["dataset"], asked["action"], asked["slice"] or None, asked["kind"] or None)
        try:
            decision = explain.explain_access(viewer.parts, viewer.caller, ask, person_id=asked["person"] or None)
            line = _line(viewer, decision)
            with viewer.parts.database.transaction() as tx:
                whom = asked["person"] or None
                waiting = explain.pending_request(tx, viewer.caller, asked["dataset"], person_id=whom)
        except (NotFound, Forbidden, Invalid) as error:
            trouble = trouble_of(error)
    return render(
        "owner/why.html",
        viewer=viewer,
        status=trouble.status if trouble else 200,
        trouble=trouble,
        decision=decision,
        line=line,
        asked=asked,
        names=names,
        theirs=asked["person"] not in ("", viewer.caller.id),
        kinds=[("", "Any"), *((name, name) for name in sorted(kinds))],
        waiting=waiting,
        actions=[(name, name) for name in ACTIONS],
        grant={"dataset": asked["dataset"]},
    )


def _line(viewer: Viewer, decision: Decision) -> int | None:
    """The line of the rule that spoke, in the rules as they were put in force."""
    with viewer.parts.database.transaction() as tx:
        rules = viewer.parts.rulebook.at(tx, decision.revision)
    found = [rule.line for rule in rules.rules if str(rule) in decision.rules] if rules else []
    return found[0] if found else None


def _new_vendor(back: Setback, sent: Mapping[str, str]) -> HTMLResponse:
    require_admin(back.viewer.caller)
    return render(
        "owner/new_vendor.html",
        viewer=back.viewer,
        status=back.status if back.trouble or back.panel else 200,
        trouble=back.trouble,
        panel=back.panel,
        filled=sent,
    )


def _who_page(back: Setback, slug: str, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        found = dataset_seen(tx, viewer.caller, slug)
        offered = {item.vendor_id for item in offers.offers_of(tx, viewer.caller, found)}
        known = tx.scalars(select(Vendor).where(Vendor.status != "offboarded").order_by(Vendor.name)).all()
    reaching = explain.who_has_access(viewer.parts, viewer.caller, found.id)
    return render(
        "owner/who.html",
        viewer=viewer,
        status=back.status if back.trouble or back.panel else 200,
        trouble=back.trouble,
        panel=back.panel,
        filled=sent,
        dataset=found,
        reaching=reaching,
        offered=[vendor for vendor in known if vendor.id in offered],
        offered_choices=[(vendor.id, vendor.name) for vendor in known if vendor.id in offered],
        others=[(vendor.id, vendor.name) for vendor in known if vendor.id not in offered],
        may_offer=_may(viewer, found),
    )


def _may(viewer: Viewer, found: Dataset) -> bool:
    try:
        require_owner_or_admin(viewer.caller, found)
    except GuestkeyError:
        return False
    return True
