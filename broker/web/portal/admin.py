"""For admins and vendors' leads: people who wait, people and vendors and their status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import get_args

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Forbidden, Invalid
from broker.base.paging import MOST, Window
from broker.identity import invitations
from broker.identity.caller import Caller
from broker.identity.invitations import enrol_link
from broker.identity.permissions import require_admin
from broker.models import PERSON_STATUSES, VENDOR_STATUSES, Invitation, Person, Vendor
from broker.registry import bulk_invitations, people, proposals, vendors
from broker.registry.naming import told_apart
from broker.suspensions.suspending import resume
from broker.web.api.people import Role
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.history import history
from broker.web.portal.inviting import vendors_without_source
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer
from broker.web.proposed import lifetime_of

router = APIRouter()
_VENDOR_ACTS: Mapping[str, Callable[[Transaction, Caller, str, str, datetime], object]] = {
    "activate": vendors.activate_vendor,
    "resume": lambda tx, caller, vendor_id, reason, now: resume(tx, caller, "vendor", vendor_id, reason, now),
}
_PERSON_ACTS: Mapping[str, Callable[[Transaction, Caller, str, str, datetime], object]] = {
    "confirm": lambda tx, caller, person_id, _, now: bulk_invitations.confirm_person(tx, caller, person_id, now),
    "refuse": lambda tx, caller, person_id, reason, now: people.refuse_joiner(tx, caller, person_id, reason, now),
    "resume": lambda tx, caller, person_id, reason, now: resume(tx, caller, "person", person_id, reason, now),
}


@router.get("/people")
def all_people(viewer: MemberNow, cursor: str | None = None, status: str = "", vendor: str = "") -> HTMLResponse:
    """People: first those who joined and wait for confirmation."""
    if not (viewer.caller.is_admin or "lead" in viewer.caller.roles):
        raise Forbidden("Only admins and a vendor's lead can do this.", advice="Ask an admin of the organisation.")
    with viewer.parts.database.transaction() as tx:
        wanted = status if status in PERSON_STATUSES else None
        waits = people.PEOPLE.page(tx, viewer.caller, Window(limit=MOST), status="pending", vendor=vendor or None)
        waiting = waits.items if wanted in (None, "pending") and cursor is None else []
        page = people.PEOPLE.page(tx, viewer.caller, Window(cursor), status=wanted, vendor=vendor or None)
        known = [person for person in page.items if person.status != "pending"]
        return render(
            "admin/people.html",
            viewer=viewer,
            page=page,
            waiting=waiting,
            people=known,
            roles=people.roles_of(tx, [person.id for person in known]),
            vendors=_vendor_names(tx, [*waiting, *known]),
            labels=_labels(tx, waiting),
            asked={"status": wanted or "", "vendor": vendor},
            choices=_vendor_choices(tx, viewer.caller),
        )


@router.get("/people/{person_id}")
def one_person(person_id: str, viewer: MemberNow) -> HTMLResponse:
    """One person: who they are here, and what can be done about them."""
    return _person_page(Setback(viewer), person_id, "", {})


@router.post("/people/{person_id}/enrolment-link")
def make_enrolment_link(person_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """A one-time link for somebody without a second factor; shown once."""

    def do(viewer: Viewer) -> Response:
        require_admin(viewer.caller)
        with viewer.parts.database.transaction() as tx:
            person = people.person(tx, viewer.caller, person_id)
            lifetime = viewer.parts.settings.invitation_lifetime
            made, token = invitations.invite_to_enrol(tx, viewer.caller.subject, person_id, lifetime, clock(tx))
        link = enrol_link(viewer.parts, token)
        return render(
            "admin/link.html",
            viewer=viewer,
            link=link,
            made=made,
            whom=told_apart(person.id, person.name, person.email),
            joining=False,
        )

    return act(viewer, sent, do, lambda back: _person_page(back, person_id, "enrolment-link", sent), needs=fresh)


@router.post("/people/{person_id}/roles")
def change_roles(person_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take a role at once, or give one: a lead's at once, an admin's or auditor's once a second admin agrees."""

    def do(viewer: Viewer) -> Response:
        if taken := sent.get("take"):
            with viewer.parts.database.transaction() as tx:
                people.take_role(tx, viewer.caller, person_id, taken, clock(tx))
            return go(f"/people/{person_id}")
        role, lifetime = _role(sent.get("role", "")), lifetime_of(viewer.parts)
        with viewer.parts.database.transaction() as tx:
            proposal = people.give_role(tx, viewer.caller, person_id, role, clock(tx), lifetime=lifetime)
        return go("/proposals" if proposal else f"/people/{person_id}")

    return act(viewer, sent, do, lambda setback: _person_page(setback, person_id, "roles", sent), needs=fresh)


@router.post("/people/{person_id}/{what}")
def change_person(person_id: str, what: str, viewer: MemberNow, sent: Sent) -> Response:
    """Confirm, turn away or resume somebody."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            _named(_PERSON_ACTS, what)(tx, viewer.caller, person_id, sent.get("reason", ""), clock(tx))
        return go(f"/people/{person_id}")

    return act(viewer, sent, do, lambda setback: _person_page(setback, person_id, what, sent), needs=fresh)


@router.get("/vendors")
def all_vendors(viewer: MemberNow, cursor: str | None = None, status: str = "") -> HTMLResponse:
    """The vendors."""
    require_admin(viewer.caller)
    wanted = status if status in VENDOR_STATUSES else None
    with viewer.parts.database.transaction() as tx:
        page = vendors.VENDORS.page(tx, viewer.caller, Window(cursor), status=wanted)
    return render("admin/vendors.html", viewer=viewer, page=page, chosen=wanted or "")


@router.get("/vendors/{vendor_id}")
def one_vendor(vendor_id: str, viewer: MemberNow) -> HTMLResponse:
    """One vendor, its people, and what can be done about it."""
    return _vendor_page(Setback(viewer), vendor_id, "", {})


@router.post("/vendors/{vendor_id}/{what}")
def change_vendor(vendor_id: str, what: str, viewer: MemberNow, sent: Sent) -> Response:
    """Activate, suspend or resume a vendor."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            _named(_VENDOR_ACTS, what)(tx, viewer.caller, vendor_id, sent.get("reason", ""), clock(tx))
        return go(f"/vendors/{vendor_id}")

    return act(viewer, sent, do, lambda setback: _vendor_page(setback, vendor_id, what, sent), needs=fresh)


def _role(name: str) -> Role:
    found: dict[str, Role] = {role: role for role in get_args(Role)}
    if name not in found:
        raise Invalid("Choose a role.", field="/role")
    return found[name]


def _named(
    acts: Mapping[str, Callable[[Transaction, Caller, str, str, datetime], object]], what: str
) -> Callable[[Transaction, Caller, str, str, datetime], object]:
    if what not in acts:
        raise Forbidden("There is no such action here.")
    return acts[what]


def _person_page(setback: Setback, person_id: str, asked_for: str, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        person = people.person(tx, viewer.caller, person_id)
        return render(
            "admin/person.html",
            viewer=viewer,
            status=setback.status if setback.trouble or setback.panel else 200,
            trouble=setback.trouble,
            panel=setback.panel,
            asked_for=asked_for,
            filled=filled,
            person=person,
            roles=people.roles_of(tx, [person_id])[person_id],
            vendor=tx.get(Vendor, person.vendor_id) if person.vendor_id else None,
            label=_labels(tx, [person]).get(person_id, ""),
            joins=bulk_invitations.team_to_join(tx, person_id) if person.status == "pending" else None,
            has_factor=invitations.has_factor(tx, person_id),
            others=proposals.other_admins(tx, viewer.caller.id, viewer.now),
            history=history(tx, viewer, "person", person_id),
        )


def _vendor_page(setback: Setback, vendor_id: str, asked_for: str, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        require_admin(viewer.caller)
        vendor = vendors.vendor(tx, viewer.caller, vendor_id)
        staff = people.PEOPLE.page(tx, viewer.caller, Window(limit=200), vendor=vendor_id).items
        lately = history(tx, viewer, "vendor", vendor_id)
        without = bool(vendors_without_source(tx, vendor_id))
    return render(
        "admin/vendor.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        asked_for=asked_for,
        filled=filled,
        vendor=vendor,
        people=staff,
        without_source=without,
        history=lately,
    )


def _vendor_names(tx: Transaction, found: Sequence[Person]) -> dict[str, str]:
    ids = {person.vendor_id for person in found if person.vendor_id}
    return {row.id: row.name for row in tx.execute(select(Vendor.id, Vendor.name).where(Vendor.id.in_(ids)))}


def _vendor_choices(tx: Transaction, caller: Caller) -> list[tuple[str, str]]:
    if not caller.is_admin:
        return []
    return [(item.id, item.name) for item in vendors.VENDORS.page(tx, caller, Window(limit=MOST)).items]


def _labels(tx: Transaction, found: Sequence[Person]) -> dict[str, str]:
    """Whom the invitation was meant for, by the person who redeemed it: what confirming is about."""
    query = select(Invitation.redeemed_by, Invitation.label).where(
        Invitation.redeemed_by.in_([person.id for person in found]), Invitation.purpose == "join"
    )
    query = query.order_by(Invitation.redeemed_at)
    return {row.redeemed_by: row.label for row in tx.execute(query)}
