"""`/events`, `/log`, `/access-at`: the audit log, its signed checkpoints, and who could reach what at a moment."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from broker.auditing import proofs, reading_events
from broker.auditing.access_at import About, AccessAt, access_at
from broker.auditing.reading_events import EventFilters
from broker.auditing.sentences import EventRead, told
from broker.base.database import Transaction, clock
from broker.base.paging import Page
from broker.identity.caller import Caller
from broker.identity.nouns import Display
from broker.models import LogCheckpoint
from broker.registry.naming import person_meant, vendor_meant
from broker.web.api import reading
from broker.web.api.common import At, CallerNow, PartsNow, PersonFilter, Shown, VendorFilter, WindowNow, verb

router = APIRouter(tags=["events"])
Form = Literal["jsonl", "json", "csv", "proofs"]
_COLUMNS = ("number", "id", "at", "kind", "actor", "subject", "details", "personal", "leaf")
_BATCH = 1000


class EventShown(Shown):
    """One event. `leaf` is its canonical JSON, for admins and auditors; `personal` is what has not been erased.

    `sentence` tells it in words, with what things are called now; no part of the record.
    """

    number: int
    id: str
    at: datetime
    kind: str
    actor: str
    subject: str
    sentence: str
    details: dict[str, Any]
    personal: dict[str, str]
    leaf: str | None


def filters_of(
    kind: Annotated[str | None, Query(max_length=64, description="Such as `lease.issued`.")] = None,
    actor: Annotated[
        str | None, Query(max_length=200, description="Who did it: id, e-mail or name; `system`, `operator`.")
    ] = None,
    subject: Annotated[str | None, Query(max_length=80, description="The id of what it happened to.")] = None,
    about: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Any id, a name at a backend (`gk_…`), a dataset's short name, an e-mail or a name.",
        ),
    ] = None,
    vendor: VendorFilter = None,
    since: Annotated[AwareDatetime | None, Query(description="Not before this.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Before this.")] = None,
) -> EventFilters:
    """What the log is narrowed to."""
    return EventFilters(kind, actor, subject, about, vendor, since, until)


FiltersNow = Annotated[EventFilters, Depends(filters_of)]


def _shown(tx: Transaction, caller: Caller, events: Sequence[EventRead]) -> list[EventShown]:
    return [EventShown.of(event, sentence=sentence) for event, sentence in told(tx, caller, events)]


_DISPLAY = Display(
    columns="at@, kind, what happened=sentence, id!",
    none="No events.",
    details="id, number, at@, what happened=sentence, kind, actor, subject, details, personal, leaf",
    command="audit list",
)


@verb(router, "GET", "/events", Page[EventShown], listed=_DISPLAY.described("event"))
def list_events(at: At, window: WindowNow, filters: FiltersNow) -> Page[EventShown]:
    """Events, newest first: all for admins and auditors, for others what they did or what was done to them."""
    filters = reading_events.with_ids(at.tx, at.caller, filters)
    page = reading_events.list_events(at.tx, at.caller, window, filters)
    return Page(items=_shown(at.tx, at.caller, page.items), next_cursor=page.next_cursor)


@router.get(
    "/events/export",
    operation_id="export_events",
    response_class=StreamingResponse,
    responses=reading.responses("jsonl", "json", "csv", "proofs"),
)
def export_events(
    caller: CallerNow,
    parts: PartsNow,
    filters: FiltersNow,
    form: Annotated[
        Form, Query(alias="format", description="One event a line, one document, a table, or with proofs.")
    ] = "jsonl",
) -> StreamingResponse:
    """Every event of exactly this filter, oldest first, as it comes. For admins and auditors; recorded as an event."""
    with parts.database.transaction() as tx:
        filters = reading_events.begin_export(tx, caller, filters, form, clock(tx))
        if form == "proofs":
            proofs.checkpoint(tx, caller)

    def read(tx: Transaction, after: str | None) -> tuple[list[EventRead], str | None]:
        events = reading_events.in_order(tx, caller, filters, int(after or 0), _BATCH)
        return events, str(events[-1].number) if len(events) == _BATCH else None

    events = reading.batches(parts, read)
    if form == "proofs":
        return reading.file_of("events", form, proofs.bundle(parts, caller, events))
    rows = ({**asdict(event), "at": event.at.isoformat()} for event in events)
    return reading.file_of("events", form, reading.written(form, _COLUMNS, rows))


@verb(router, "GET", "/events/{event_id}", EventShown)
def show_event(at: At, event_id: str) -> EventShown:
    """One event."""
    return _shown(at.tx, at.caller, [reading_events.one_event(at.tx, at.caller, event_id)])[0]


@router.get(
    "/events/{event_id}/proof",
    operation_id="prove_event",
    response_class=StreamingResponse,
    responses=reading.responses("proofs"),
)
def prove_event(event_id: str, caller: CallerNow, parts: PartsNow) -> StreamingResponse:
    """That one event is in the log, for `guestkey audit verify`. For admins and auditors."""
    with parts.database.transaction() as tx:
        event = reading_events.one_event(tx, caller, event_id)
        proofs.checkpoint(tx, caller)
    return reading.file_of(event.id, "proofs", proofs.bundle(parts, caller, [event]))


_LARGEST = 2**62


class CheckpointShown(Shown):
    """A signed checkpoint (C2SP tlog-checkpoint) and the public key that checks it."""

    size: int = Field(description="How many events the log held.")
    at: datetime = Field(description="When it was signed.")
    note: str = Field(description="The signed note, to be kept as it is.")
    key: str = Field(description="The log's public key, as C2SP signed-note writes it. Keep it apart from the notes.")


class Consistency(BaseModel):
    """The proof that the log of `first` entries is the beginning of that of `second` (RFC 6962 §2.1.2)."""

    first: int
    second: int
    hashes: list[str] = Field(description="In base64, in the order of the RFC.")


@verb(router, "GET", "/log/checkpoint", CheckpointShown)
def show_checkpoint(
    at: At,
    size: Annotated[
        int | None, Query(ge=1, le=_LARGEST, description="That of this many entries; else the newest.")
    ] = None,
) -> LogCheckpoint:
    """A checkpoint of the log: keep some outside, so that nobody can rewrite what came before them."""
    return proofs.checkpoint(at.tx, at.caller, size)


@verb(router, "GET", "/log/consistency", Consistency)
def show_consistency(
    at: At,
    first: Annotated[int, Query(ge=1, le=_LARGEST, description="Entries of the older checkpoint.")],
    second: Annotated[int, Query(ge=1, le=_LARGEST, description="Entries of the newer one.")],
) -> Consistency:
    """That nothing was taken out or altered between two checkpoints."""
    hashes = proofs.grown(at.tx, at.caller, first, second)
    return Consistency(first=first, second=second, hashes=[base64.b64encode(hash_).decode() for hash_ in hashes])


Id = Annotated[str | None, Query(max_length=64)]


@verb(router, "GET", "/access-at", AccessAt)
def show_access_at(
    at: At,
    moment: Annotated[AwareDatetime, Query(alias="at", description="The moment.")],
    dataset: Id = None,
    person: PersonFilter = None,
    vendor: VendorFilter = None,
) -> AccessAt:
    """Who could reach a dataset (or what a person or vendor could reach) at a moment, and who did. For auditors."""
    whom = person_meant(at.tx, at.caller, person or "", "query/person")
    about = About(dataset, whom, vendor_meant(at.tx, at.caller, vendor or "", "query/vendor"))
    return access_at(at.tx, at.caller, moment, about)
