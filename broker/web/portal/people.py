"""People, for admins and vendors' leads: who joined and waits, their roles, and the links by which people join."""

from __future__ import annotations

from starlette.responses import Response

from broker.base import words
from broker.base.paging import MOST, Window
from broker.identity import invitations
from broker.identity.permissions import require_admin, require_looks_after_people
from broker.models import PERSON_STATUSES
from broker.registry import bulk_invitations, people, proposals, vendors
from broker.registry.naming import names_of, told_apart
from broker.web.api.common import lifetime_of
from broker.web.portal.auditing import history
from broker.web.portal.forms import Context, PortalRequest, act, form, page
from broker.web.portal.pages import render
from broker.web.portal.suspending import resuming


@page("/people", template="admin/people.html")
def all_people(req: PortalRequest) -> Context:
    """People: first those who joined and wait for confirmation."""
    require_looks_after_people(req.caller)
    tx, window, vendor = req.tx, req.window(), req.asked("vendor")
    status = req.asked("status") if req.asked("status") in PERSON_STATUSES else None
    waits, _ = req.listed(people.PEOPLE, Window(limit=MOST), status="pending", vendor=vendor or None)
    waiting = waits.items if status in (None, "pending") and window.cursor is None else []
    found, trouble = req.listed(people.PEOPLE, status=status, vendor=vendor or None)
    known = [person for person in found.items if person.status != "pending"]
    return {
        "trouble": trouble,
        "page": found,
        "waiting": waiting,
        "people": known,
        "roles": people.roles_of(tx, [person.id for person in known]),
        "vendors": names_of(tx, {person.vendor_id for person in [*waiting, *known] if person.vendor_id}),
        "labels": invitations.labels(tx, [person.id for person in waiting]),
        "asked": {"status": status or "", "vendor": vendor},
        "choices": vendors.choices(tx) if req.caller.is_admin else [],
    }


@page("/people/{person_id}", template="admin/person.html")
def one_person(req: PortalRequest, person_id: str) -> Context:
    """One person: who they are here, and what can be done about them."""
    tx = req.tx
    person = people.person(tx, req.caller, person_id)
    return {
        "person": person,
        "roles": people.roles_of(tx, [person_id])[person_id],
        "vendor": vendors.vendor(tx, req.caller, person.vendor_id) if person.vendor_id else None,
        "label": invitations.labels(tx, [person_id]).get(person_id, ""),
        "joins": bulk_invitations.team_to_join(tx, person_id) if person.status == "pending" else None,
        "has_factor": invitations.has_factor(tx, person_id),
        "others": proposals.other_admins(tx, req.caller.id, req.viewer.now),
        "history": history(req, "person", person_id),
    }


@form("/people/{person_id}/enrolment-link", rerender=one_person)
def make_enrolment_link(req: PortalRequest, person_id: str) -> Response:
    """A one-time link for somebody without a second factor; shown once."""
    require_admin(req.caller)
    person = people.person(req.tx, req.caller, person_id)
    lifetime = req.parts.settings.invitation_lifetime
    made, token = invitations.invite_to_enrol(req.tx, req.caller.subject, person_id, lifetime, req.now)
    link, whom = invitations.enrol_link(req.parts, token), told_apart(person.id, person.name, person.email)
    return render("admin/link.html", viewer=req.viewer, link=link, made=made, whom=whom, joining=False)


@form("/people/{person_id}/roles", rerender=one_person)
def change_roles(req: PortalRequest, person_id: str) -> str:
    """Take a role at once, or give one: a lead's at once, an admin's or auditor's once a second admin agrees."""
    if taken := req.field("take"):
        people.take_role(req.tx, req.caller, person_id, taken, req.now)
        return f"/people/{person_id}"
    lifetime = lifetime_of(req.parts)
    waits = people.give_role(req.tx, req.caller, person_id, req.field("role"), req.now, lifetime=lifetime)
    return "/proposals" if waits else f"/people/{person_id}"


act("/people/{person_id}/confirm", bulk_invitations.confirm_person, rerender=one_person)
act("/people/{person_id}/refuse", people.refuse_joiner, "reason", rerender=one_person)
act("/people/{person_id}/resume", resuming("person"), "reason", rerender=one_person)


@page("/invite", template="admin/invite.html")
def invite_page(req: PortalRequest) -> Context:
    """The form for inviting somebody to join."""
    sources = invitations.source_choices(req.tx, req.caller)
    without = vendors.without_source(req.tx) if req.caller.is_admin else []
    return {"sources": sources, "without": without, "filled": req.prefilled("source")}


@form("/invite", rerender=invite_page)
def invite(req: PortalRequest) -> Response:
    """Make the link, shown once."""
    label = words.name(req.field("label"), "/label", longest=200)
    lifetime = req.parts.settings.invitation_lifetime
    made, token = invitations.invite_to_join(req.tx, req.caller, req.field("source"), label, lifetime, req.now)
    link = invitations.join_link(req.parts, token)
    return render("admin/link.html", viewer=req.viewer, link=link, made=made, whom=label, joining=True)


@page("/invitations", template="admin/invitations.html")
def unused_links(req: PortalRequest) -> Context:
    """The joining links that nobody has used yet."""
    found = invitations.list_unused(req.tx, req.caller, req.window(), req.viewer.now)
    return {"page": found, "sources": names_of(req.tx, {item.source_id for item in found.items if item.source_id})}


act("/invitations/{invitation_id}/end", invitations.end_unused, rerender=unused_links, needs=None, then="/invitations")
