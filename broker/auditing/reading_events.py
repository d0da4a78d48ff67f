"""Reading the audit log: admins and auditors all of it, everybody else what concerns themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from sqlalchemy import ColumnElement, Select, String, cast, func, literal, or_, select, union, union_all
from sqlalchemy.dialects.postgresql import ARRAY

from broker.auditing.sentences import EventRead, sentences
from broker.base.database import Transaction
from broker.base.errors import Forbidden, Invalid, NotFound
from broker.base.ids import is_id
from broker.base.paging import Page, Window, bad_cursor, matching
from broker.identity.caller import Caller
from broker.identity.permissions import missing, sees_everything
from broker.log import audit
from broker.models import Event, EventPersonal, Lease, Person, Service
from broker.registry.datasets import dataset as dataset_seen
from broker.registry.naming import anything_meant, bare, person_meant, vendor_meant

# What a stranger asked for and what exists must read the same to whoever asked.
_UNKNOWN_DATASET = "dataset:unknown"
_IDS = ARRAY(String(40))
# Who acts without being a person or a service.
_NO_PERSONS = (audit.SYSTEM, "operator")
_ASKED = ("action", "kind", "slice")
# One that cannot be ended is tried again for ever.
_MOST_TOLD = 50


@dataclass(frozen=True, slots=True)
class EventFilters:
    """What the log is narrowed to; None leaves it wide.

    `about`: the id of anything an event names, or of whom or what the record names that it happened to. `vendor`: what
    its people and services did, or had done to them. `actor`: who did it; a bare id is a person's or a service's.
    `since` and `until` bound the time, the latter exclusively.
    """

    kind: str | None = None
    actor: str | None = None
    subject: str | None = None
    about: str | None = None
    vendor: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def with_ids(tx: Transaction, caller: Caller, filters: EventFilters) -> EventFilters:
    """The same filters with ids where names were typed: of people (or their e-mail), vendors, teams, datasets.

    Raises:
        Invalid: nothing that the caller sees, or more than one thing, is called so; or there is no such kind of event.
    """
    if filters.kind is not None and filters.kind not in sentences():
        near = get_close_matches(filters.kind, sentences(), n=1)
        raise Invalid(
            "There is no event kind of that name.",
            field="/query/kind",
            advice=f"Did you mean {near[0]}?" if near else "Kinds are like lease.issued.",
        )
    return replace(
        filters,
        actor=_actor_meant(tx, caller, filters.actor),
        about=anything_meant(tx, caller, filters.about or "", "query/about"),
        vendor=vendor_meant(tx, caller, filters.vendor or "", "query/vendor"),
    )


def list_events(tx: Transaction, caller: Caller, window: Window, filters: EventFilters) -> Page[EventRead]:
    """Events, newest first. The cursor is an event's number.

    Raises:
        Invalid: the cursor is none of ours.
    """
    narrowed = _conditions(filters)
    if window.cursor is not None:
        narrowed.append(Event.number < _number(window.cursor))
    if sees_everything(caller):
        query = select(Event).where(*narrowed)
    elif any(_hides(tx, caller, id_) for id_ in (filters.subject, filters.about, filters.vendor) if id_):
        # That something was asked for in vain is shown; whether it exists is not, by no filter either.
        return Page(items=[], next_cursor=None)
    else:
        # Two walks along an index each, instead of one along the whole log.
        did = _newest(window, [*narrowed, Event.actor == caller.subject])
        was_done_to = _newest(window, [*narrowed, Event.subject == caller.id])
        query = select(Event).where(Event.number.in_(union(did, was_done_to)))
    query = query.order_by(Event.number.desc()).limit(window.limit + 1)
    rows = list(tx.scalars(query))
    kept = rows[: window.limit]
    next_cursor = str(kept[-1].number) if len(rows) > window.limit else None
    return Page(items=_read_all(tx, caller, kept), next_cursor=next_cursor)


@dataclass(frozen=True, slots=True)
class EventText:
    """What happened to a lease, without anything personal; `open` says whether the reader may open the event."""

    id: str
    at: datetime
    kind: str
    actor: str
    cause: str
    open: bool


def of_lease(tx: Transaction, caller: Caller, found: Lease) -> list[EventText]:
    """The newest events of a lease that the caller sees, oldest first."""
    query = select(Event).where(Event.subject == found.id).order_by(Event.number.desc()).limit(_MOST_TOLD)
    return [
        EventText(
            event.id,
            event.at,
            event.kind,
            event.actor,
            json.loads(event.leaf)["details"].get("cause", ""),
            sees_everything(caller) or event.actor == caller.subject,
        )
        for event in reversed(tx.scalars(query).all())
    ]


def one_event(tx: Transaction, caller: Caller, event_id: str) -> EventRead:
    """One event.

    Raises:
        NotFound: there is none of that id that the caller may see.
    """
    query = select(Event).where(Event.id == event_id)
    if not sees_everything(caller):
        query = query.where(or_(Event.actor == caller.subject, Event.subject == caller.id))
    event = tx.scalars(query).one_or_none() if is_id(event_id) else None
    if event is None:
        raise missing("event")
    return _read_all(tx, caller, [event])[0]


def begin_export(tx: Transaction, caller: Caller, filters: EventFilters, form: str, now: datetime) -> EventFilters:
    """Record that somebody takes events out, and return the filters with ids for names: it is refused now or never.

    Raises:
        Invalid: a filter names nobody, or more than one.
        Forbidden: the caller may not export.
    """
    filters = with_ids(tx, caller, filters)
    in_order(tx, caller, filters, 0, 1)
    narrowed = {name: str(value) for name, value in asdict(filters).items() if value is not None}
    personal = {"filter": json.dumps(narrowed, sort_keys=True)}
    actor, subject = caller.subject, caller.id
    audit.record(
        tx, "audit.exported", actor=actor, subject=subject, now=now, details={"format": form}, personal=personal
    )
    return filters


def in_order(tx: Transaction, caller: Caller, filters: EventFilters, after: int, limit: int) -> list[EventRead]:
    """The next events after a number, oldest first, for exporting all of them page by page.

    Raises:
        Forbidden: only admins and auditors export.
    """
    if not sees_everything(caller):
        raise Forbidden("Only admins and auditors can export events.", advice="Ask an auditor of the organisation.")
    query = select(Event).where(*_conditions(filters), Event.number > after).order_by(Event.number).limit(limit)
    return _read_all(tx, caller, tx.scalars(query).all())


def _conditions(filters: EventFilters) -> list[ColumnElement[bool]]:
    given = matching((Event.kind, filters.kind), (Event.subject, filters.subject))
    if filters.actor is not None:
        given.append(_acted_by(filters.actor) if is_id(filters.actor) else Event.actor == filters.actor)
    if filters.about is not None:
        given.append(
            or_(
                Event.about.contains(cast([filters.about], _IDS)),
                Event.subject == filters.about,
                _acted_by(filters.about),
            )
        )
    if filters.vendor is not None:
        given.append(Event.about.overlap(_of_vendor(filters.vendor)))
    if filters.since is not None:
        given.append(Event.at >= filters.since)
    if filters.until is not None:
        given.append(Event.at < filters.until)
    return given


def _actor_meant(tx: Transaction, caller: Caller, text: str | None) -> str | None:
    if text is None or text in _NO_PERSONS or is_id(bare(text)):
        return text
    return person_meant(tx, caller, text, "query/actor")


def _acted_by(id_: str) -> ColumnElement[bool]:
    return Event.actor.in_((f"person:{id_}", f"service:{id_}"))


def _of_vendor(vendor: str) -> ColumnElement[list[str]]:
    members = union_all(
        select(literal(vendor).label("id")),
        select(Person.id).where(Person.vendor_id == vendor),
        select(Service.id).where(Service.vendor_id == vendor),
    ).subquery()
    return select(func.array_agg(cast(members.c.id, String(40)), type_=_IDS)).scalar_subquery()


def _newest(window: Window, conditions: list[ColumnElement[bool]]) -> Select[int]:
    found = select(Event.number).where(*conditions).order_by(Event.number.desc()).limit(window.limit + 1)
    return select(found.subquery().c.number)


def _read_all(tx: Transaction, caller: Caller, events: Sequence[Event]) -> list[EventRead]:
    personal = _personal(tx, events)
    return [_read(tx, caller, event, personal.get(event.id, {})) for event in events]


def _read(tx: Transaction, caller: Caller, event: Event, personal: dict[str, str]) -> EventRead:
    details: dict[str, Any] = json.loads(event.leaf)["details"]
    everything = sees_everything(caller)
    subject = event.subject
    if not everything and event.kind.startswith("decision.") and not _sees(tx, caller, subject):
        subject, details = _UNKNOWN_DATASET, {key: details.get(key) for key in _ASKED}
    if not everything:
        mine = event.actor == caller.subject
        personal = {field: value for field, value in personal.items() if mine and field != "dataset_asked"}
    return EventRead(
        number=event.number,
        id=event.id,
        at=event.at,
        kind=event.kind,
        actor=event.actor,
        subject=subject,
        details=details,
        personal=personal,
        leaf=event.leaf.decode() if everything else None,
    )


def _hides(tx: Transaction, caller: Caller, id_: str) -> bool:
    """Whether filtering by this would tell what exists: it is looked for in the record, where nothing is left out."""
    return id_ == _UNKNOWN_DATASET or (id_.startswith("ds_") and not _sees(tx, caller, id_))


def _sees(tx: Transaction, caller: Caller, dataset_id: str) -> bool:
    try:
        dataset_seen(tx, caller, dataset_id)
    except NotFound:
        return False
    return True


def _personal(tx: Transaction, events: Sequence[Event]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    query = select(EventPersonal).where(EventPersonal.event_id.in_([event.id for event in events]))
    for row in tx.scalars(query):
        found.setdefault(row.event_id, {})[row.field] = row.value
    return found


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise bad_cursor()
    return int(cursor)
