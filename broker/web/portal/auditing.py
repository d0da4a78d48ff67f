"""For auditors, who only look: events, one event, who had access at a moment, and the revisions of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.requests import Request

from broker.auditing import proofs, reading_events
from broker.auditing.access_at import About, access_at
from broker.auditing.figures import per_day
from broker.auditing.proofs import Place
from broker.auditing.reading_events import EventFilters, EventRead
from broker.auditing.sentences import sentences
from broker.auditing.telling import names_in, said
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Forbidden, Invalid, NotFound
from broker.base.paging import Page, Window
from broker.identity.permissions import sees_everything
from broker.models import LogCheckpoint, PolicyInForce, PolicyRevision
from broker.registry.naming import anything_meant, bare, names_of, names_seen, person_meant, vendor_meant
from broker.web.portal.pages import render
from broker.web.portal.telling import details_of, part
from broker.web.portal.viewer import MemberNow, Viewer

router = APIRouter()
_FIELDS = ("kind", "actor", "subject", "about", "vendor", "since", "until")
_MOST_REVISIONS = 100


@router.get("/events")
def events(request: Request, viewer: MemberNow, cursor: str | None = None) -> HTMLResponse:
    """Events, newest first, narrowed by what the address says."""
    asked = _asked(request, _FIELDS)
    trouble = None
    page: Page[EventRead] = Page(items=[], next_cursor=None)
    with viewer.parts.database.transaction() as tx:
        try:
            _meant(tx, viewer, asked)
            filters = EventFilters(
                asked.get("kind"),
                asked.get("actor"),
                asked.get("subject"),
                asked.get("about"),
                asked.get("vendor"),
                _moment(asked, "since"),
                _moment(asked, "until"),
            )
            page = reading_events.list_events(tx, viewer.caller, Window(cursor), filters)
        except Invalid as error:
            trouble = error
        names = names_in(tx, viewer.caller, page.items) | names_seen(tx, viewer.caller, asked.values())
        everything = sees_everything(viewer.caller)
        days = per_day(tx, viewer.caller, viewer.now) if everything and not asked and cursor is None else None
    return render(
        "audit/events.html",
        viewer=viewer,
        status=422 if trouble else 200,
        trouble=_shown(trouble),
        page=page,
        rows=[(item, said(item, names)) for item in page.items],
        asked=asked,
        names=names,
        kinds=[("", "Anything"), *((kind, kind) for kind in sorted(sentences()))],
        query=urlencode(_for_api(asked)),
        everything=everything,
        days=days,
    )


@router.get("/events/{event_id}")
def one_event(event_id: str, viewer: MemberNow) -> HTMLResponse:
    """One event: a sentence, what it says, and its canonical form."""
    with viewer.parts.database.transaction() as tx:
        event = reading_events.one_event(tx, viewer.caller, event_id)
        names = names_in(tx, viewer.caller, [event])
        place, checkpoint = _proof(tx, viewer, event)
    return render(
        "audit/event.html",
        viewer=viewer,
        event=event,
        said=said(event, names),
        who=None if event.actor == "system" else part(event.actor, names),
        whom=part(event.subject, names),
        details=details_of(event.details, names),
        place=place,
        checkpoint=checkpoint,
    )


def _proof(tx: Transaction, viewer: Viewer, event: EventRead) -> tuple[Place | None, LogCheckpoint | None]:
    if not sees_everything(viewer.caller):
        return None, None
    try:
        newest = proofs.checkpoint(tx, viewer.caller)
    except NotFound:
        return None, None
    tree = proofs.Tree(tx, newest.size)
    return proofs.place(tx, viewer.caller, event.number, tree, newest.size), newest


@router.get("/access-at")
def access_at_page(request: Request, viewer: MemberNow) -> HTMLResponse:
    """Who could reach what at a moment, and who did."""
    if not sees_everything(viewer.caller):
        raise Forbidden("Only admins and auditors can see this.", advice="Ask an auditor of the organisation.")
    asked = _asked(request, ("at", "dataset", "person", "vendor"))
    found, trouble = None, None
    with viewer.parts.database.transaction() as tx:
        try:
            _meant(tx, viewer, asked)
            if asked:
                about = About(asked.get("dataset"), asked.get("person"), asked.get("vendor"))
                found = access_at(tx, viewer.caller, _moment(asked, "at") or clock(tx), about)
        except Invalid as error:
            trouble = error
        holders = [bare(item.holder) for item in found.did] if found else []
        names = names_of(tx, [*holders, *asked.values()])
    return render(
        "audit/access_at.html",
        viewer=viewer,
        status=422 if trouble else 200,
        trouble=_shown(trouble),
        found=found,
        asked=asked,
        names=names,
    )


@router.get("/policy")
def revisions(viewer: MemberNow) -> HTMLResponse:
    """The revisions of the rules, newest first."""
    _may_see_rules(viewer)
    with viewer.parts.database.transaction() as tx:
        current = tx.execute(select(PolicyInForce.revision)).scalar_one_or_none()
        newest = select(PolicyRevision).order_by(PolicyRevision.number.desc()).limit(_MOST_REVISIONS)
        rows = tx.scalars(newest).all()
        names = names_of(tx, {id_ for row in rows for id_ in (row.proposed_by, row.approved_by) if id_})
    return render("audit/revisions.html", viewer=viewer, revisions=rows, current=current, names=names)


@router.get("/policy/{number}")
def one_revision(number: int, viewer: MemberNow, against: int | None = None) -> HTMLResponse:
    """One revision: its text, and its difference from another (the one before, unless named)."""
    _may_see_rules(viewer)
    book = viewer.parts.rulebook
    with viewer.parts.database.transaction() as tx:
        row = tx.get(PolicyRevision, number) if 0 < number < 2**31 else None
        if row is None:
            raise NotFound("There is no such revision.")
        other = against if against is not None else number - 1
        this, before = book.at(tx, number), book.at(tx, other) if 0 < other < 2**31 else None
        current = tx.execute(select(PolicyInForce.revision)).scalar_one_or_none()
        names = names_of(tx, [id_ for id_ in (row.proposed_by, row.approved_by) if id_])
    removed, added = before.diff(this) if this and before else ((), ())
    return render(
        "audit/revision.html",
        viewer=viewer,
        revision=row,
        in_force=row.number == current,
        other=other if before else None,
        removed=removed,
        added=added,
        names=names,
    )


def _may_see_rules(viewer: Viewer) -> None:
    if not sees_everything(viewer.caller):
        raise Forbidden(
            "Only admins and auditors can see the rules.", advice="`guestkey why` explains how the rules apply to you."
        )


def _asked(request: Request, fields: Iterable[str]) -> dict[str, str]:
    """What the address asks for; what is left empty is not asked."""
    return {name: value[:80] for name in fields if (value := request.query_params.get(name, "").strip())}


def _moment(asked: Mapping[str, str], name: str) -> datetime | None:
    """A moment as a form field gives it; UTC unless it says otherwise."""
    if name not in asked:
        return None
    try:
        found = datetime.fromisoformat(asked[name])
    except ValueError:
        raise Invalid(
            "This is not a date and time.", field=f"/{name}", advice="Enter it like 2026-03-01T09:30."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _for_api(asked: Mapping[str, str]) -> dict[str, str]:
    """The same filter as the API reads it."""
    moments = {name: found.isoformat() for name in ("since", "until") if (found := _quietly(asked, name))}
    return {**{name: value for name, value in asked.items() if name not in ("since", "until")}, **moments}


def _quietly(asked: Mapping[str, str], name: str) -> datetime | None:
    try:
        return _moment(asked, name)
    except Invalid:
        return None


def _shown(error: Invalid | None) -> dict[str, str] | None:
    if error is None:
        return None
    field = error.field.rpartition("/")[2]
    return {"title": "There is a problem", "detail": error.detail, "advice": error.advice, "field": field}


def _meant(tx: Transaction, viewer: Viewer, asked: dict[str, str]) -> None:
    """Put ids where names were typed.

    Raises:
        Invalid: nothing, or more than one thing, is called so.
    """
    for field, meant in (("about", anything_meant), ("person", person_meant), ("vendor", vendor_meant)):
        if field in asked:
            asked[field] = meant(tx, viewer.caller, asked[field], field) or ""
