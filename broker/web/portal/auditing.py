"""Events, one event, what happened to something lately, who had access at a moment, and the revisions of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from broker.auditing import proofs, reading_events
from broker.auditing.access_at import About, access_at
from broker.auditing.proofs import LogPosition
from broker.auditing.reading_events import EventFilters, list_events
from broker.auditing.sentences import EventRead, names_in, said, sentences, texts, told
from broker.auditing.statistics import per_day
from broker.base.errors import Invalid, NotFound
from broker.base.ids import is_id
from broker.base.paging import Page, Window
from broker.identity.permissions import require_reader, require_sees_rules, sees_everything
from broker.models import LogCheckpoint, Suspension
from broker.registry.naming import anything_meant, bare, names_of, names_seen, person_meant, vendor_meant
from broker.revocation.counts import What
from broker.runtime import rulebook
from broker.suspensions.reports import open_suspension
from broker.web.portal.forms import Context, PortalRequest, page, trouble_of


@dataclass(frozen=True, slots=True)
class SentencePart:
    """One value: a text, perhaps with a page behind it, or a time."""

    text: str
    href: str = ""
    at: datetime | None = None


def details_of(details: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, list[SentencePart]]]:
    """Details by name, those that say nothing left out."""
    return [
        (name.replace("_", " ").capitalize(), [part(text, names) for text in texts(value)])
        for name, value in details.items()
        if value not in (None, "", [], {})
    ]


def part(value: str, names: Mapping[str, str]) -> SentencePart:
    """One value, as a page shows it."""
    id_ = bare(value)
    if is_id(id_):
        return SentencePart(
            names.get(id_, value), f"/events/{id_}" if id_.startswith("ev_") else f"/events?about={id_}"
        )
    try:
        at = datetime.fromisoformat(value) if "T" in value else None
    except ValueError:
        at = None
    return SentencePart(value, at=at if at and at.tzinfo else None)


_MOMENTS = ("since", "until")
_FIELDS = ("kind", "actor", "subject", "about", "vendor", *_MOMENTS)


@page("/events", template="audit/events.html")
def events(req: PortalRequest) -> Context:
    """Events, newest first, narrowed by what the address says."""
    asked, window = _asked(req, _FIELDS), req.window()
    found: Page[EventRead] = Page(items=[], next_cursor=None)
    trouble = None
    try:
        _meant(req, asked)
        words = {name: value for name, value in asked.items() if name not in _MOMENTS}
        filters = EventFilters(**words, since=_moment(asked, "since"), until=_moment(asked, "until"))
        found = reading_events.list_events(req.tx, req.caller, window, filters)
    except Invalid as error:
        trouble = trouble_of(error)
    names = names_in(req.tx, req.caller, found.items) | names_seen(req.tx, req.caller, asked.values())
    everything = sees_everything(req.caller)
    charted = everything and not asked and window.cursor is None
    return {
        "trouble": trouble,
        "page": found,
        "rows": [(item, said(item, names)) for item in found.items],
        "asked": asked,
        "names": names,
        "kinds": [("", "Anything"), *((kind, kind) for kind in sorted(sentences()))],
        "query": urlencode(_for_api(asked)),
        "everything": everything,
        "days": per_day(req.tx, req.caller, req.viewer.now) if charted else None,
    }


@page("/events/{event_id}", template="audit/event.html")
def one_event(req: PortalRequest, event_id: str) -> Context:
    """One event: a sentence, what it says, and its canonical form."""
    event = reading_events.one_event(req.tx, req.caller, event_id)
    names = names_in(req.tx, req.caller, [event])
    place, checkpoint = _proof(req, event)
    return {
        "event": event,
        "said": said(event, names),
        "who": None if event.actor == "system" else part(event.actor, names),
        "whom": part(event.subject, names),
        "details": details_of(event.details, names),
        "place": place,
        "checkpoint": checkpoint,
    }


def _proof(req: PortalRequest, event: EventRead) -> tuple[LogPosition | None, LogCheckpoint | None]:
    if not sees_everything(req.caller):
        return None, None
    try:
        newest = proofs.checkpoint(req.tx, req.caller)
    except NotFound:
        return None, None
    tree = proofs.Tree(req.tx, newest.size)
    return proofs.place(req.tx, req.caller, event.number, tree, newest.size), newest


@page("/access-at", template="audit/access_at.html")
def access_at_page(req: PortalRequest) -> Context:
    """Who could reach what at a moment, and who did."""
    require_reader(req.caller)
    asked = _asked(req, ("at", "dataset", "person", "vendor"))
    found, trouble = None, None
    try:
        _meant(req, asked)
        if asked:
            about = About(asked.get("dataset"), asked.get("person"), asked.get("vendor"))
            found = access_at(req.tx, req.caller, _moment(asked, "at") or req.now, about)
    except Invalid as error:
        trouble = trouble_of(error)
    holders = [bare(item.holder) for item in found.did] if found else []
    return {"trouble": trouble, "found": found, "asked": asked, "names": names_of(req.tx, [*holders, *asked.values()])}


@page("/policy", template="audit/revisions.html")
def revisions(req: PortalRequest) -> Context:
    """The revisions of the rules, newest first."""
    require_sees_rules(req.caller)
    rows = rulebook.revisions(req.tx)
    names = names_of(req.tx, {id_ for row in rows for id_ in (row.proposed_by, row.approved_by) if id_})
    return {"revisions": rows, "current": rulebook.number_in_force(req.tx), "names": names}


@page("/policy/{number}", template="audit/revision.html")
def one_revision(req: PortalRequest, number: str) -> Context:
    """One revision: its text, and its difference from another (the one before, unless named)."""
    require_sees_rules(req.caller)
    row = rulebook.revision(req.tx, _number(number))
    other = _number(req.asked("against")) if req.asked("against") else row.number - 1
    this, before = (req.parts.rulebook.at(req.tx, at) for at in (row.number, other))
    removed, added = before.diff(this) if this and before else ((), ())
    return {
        "revision": row,
        "in_force": row.number == rulebook.number_in_force(req.tx),
        "other": other if before else None,
        "removed": removed,
        "added": added,
        "names": names_of(req.tx, [id_ for id_ in (row.proposed_by, row.approved_by) if id_]),
    }


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _asked(req: PortalRequest, fields: Iterable[str]) -> dict[str, str]:
    """What the address asks for; what is left empty is not asked."""
    return {name: value[:80] for name in fields if (value := req.asked(name))}


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
    """The same filter as the API reads it; a moment that is none is left out."""
    filters = {name: value for name, value in asked.items() if name not in _MOMENTS}
    for name in _MOMENTS:
        with suppress(Invalid):
            if found := _moment(asked, name):
                filters[name] = found.isoformat()
    return filters


def _meant(req: PortalRequest, asked: dict[str, str]) -> None:
    """Put ids where names were typed.

    Raises:
        Invalid: nothing, or more than one thing, is called so.
    """
    for field, meant in (("about", anything_meant), ("person", person_meant), ("vendor", vendor_meant)):
        if field in asked:
            asked[field] = meant(req.tx, req.caller, asked[field], field) or ""


_LATEST = 5


@dataclass(frozen=True, slots=True)
class History:
    """The latest events with their sentences, and the open suspension as far as the viewer sees it."""

    id: str
    events: Sequence[tuple[EventRead, str]]
    suspension: Suspension | None


def history(req: PortalRequest, what: What, id_: str) -> History:
    """What happened to something lately."""
    filters = EventFilters(vendor=id_) if what == "vendor" else EventFilters(about=id_)
    items = list_events(req.tx, req.caller, Window(limit=_LATEST), filters).items
    return History(id_, told(req.tx, req.caller, items), open_suspension(req.tx, req.caller, what, id_))
