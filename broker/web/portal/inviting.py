"""Joining links: making one, those that nobody has used yet, and making one of them worthless."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import exists, select
from starlette.responses import Response

from broker.base import words
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Forbidden
from broker.base.paging import MOST, Window, page
from broker.identity import invitations
from broker.identity.invitations import join_link
from broker.models import Invitation, SignInSource, Vendor
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()


@router.get("/invite")
def invite_page(viewer: MemberNow, source: str = "") -> HTMLResponse:
    """The form for inviting somebody to join."""
    return _invite_page(Setback(viewer), {"source": source})


@router.post("/invite")
def invite(viewer: MemberNow, sent: Sent) -> Response:
    """Make the link, shown once."""

    def do(viewer: Viewer) -> Response:
        label = words.name(sent.get("label", ""), "/label", longest=200)
        with viewer.parts.database.transaction() as tx:
            lifetime = viewer.parts.settings.invitation_lifetime
            made, token = invitations.invite_to_join(
                tx, viewer.caller, sent.get("source", ""), label, lifetime, clock(tx)
            )
        link = join_link(viewer.parts, token)
        return render("admin/link.html", viewer=viewer, link=link, made=made, whom=label, joining=True)

    return act(viewer, sent, do, lambda setback: _invite_page(setback, sent), needs=fresh)


@router.get("/invitations")
def unused_links(viewer: MemberNow, cursor: str | None = None) -> HTMLResponse:
    """The joining links that nobody has used yet."""
    return _unused_page(Setback(viewer), cursor)


@router.post("/invitations/{invitation_id}/end")
def end_link(invitation_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Make a link worthless."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            invitations.end_unused(tx, viewer.caller, invitation_id, clock(tx))
        return go("/invitations")

    return act(viewer, sent, do, lambda setback: _unused_page(setback, None))


def sources_of(tx: Transaction, viewer: Viewer) -> list[tuple[str, str]]:
    """The sources the viewer may invite through; an admin all, a lead those of the own vendor."""
    if not (viewer.caller.is_admin or "lead" in viewer.caller.roles):
        raise Forbidden("Only admins and a vendor's lead can do this.", advice="Ask an admin of the organisation.")
    query = select(SignInSource.id, SignInSource.name).where(SignInSource.status == "active")
    if not viewer.caller.is_admin:
        query = query.where(SignInSource.vendor_id == viewer.caller.vendor_id)
    return [(row.id, row.name) for row in tx.execute(query.order_by(SignInSource.name))]


def vendors_without_source(tx: Transaction, vendor_id: str | None = None) -> list[tuple[str, str]]:
    """The vendors nobody can be invited for, id and name: no sign-in source of theirs is active."""
    bound = exists().where(SignInSource.vendor_id == Vendor.id, SignInSource.status == "active")
    query = select(Vendor.id, Vendor.name).where(Vendor.status != "offboarded", ~bound).order_by(Vendor.name)
    query = query.where(Vendor.id == vendor_id) if vendor_id else query
    return [(row.id, row.name) for row in tx.execute(query.limit(MOST))]


def _invite_page(setback: Setback, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        sources = sources_of(tx, viewer)
        without = vendors_without_source(tx) if viewer.caller.is_admin else []
    return render(
        "admin/invite.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        filled=filled,
        sources=sources,
        without=without,
    )


def _unused_page(setback: Setback, cursor: str | None) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        waiting = invitations.INVITATIONS.query(tx, viewer.caller).where(
            Invitation.purpose == "join", invitations.unused(viewer.now)
        )
        found = page(tx, waiting, Invitation.id, Window(cursor))
        used = {item.source_id for item in found.items}
        names = select(SignInSource.id, SignInSource.name).where(SignInSource.id.in_(used))
        sources = {row.id: row.name for row in tx.execute(names)}
    return render(
        "admin/invitations.html",
        viewer=viewer,
        status=setback.status if setback.trouble else 200,
        trouble=setback.trouble,
        page=found,
        sources=sources,
    )
