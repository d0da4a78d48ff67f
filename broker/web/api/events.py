"""`/events`: the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from broker.auditing import bundles, proofs, reading_events
from broker.auditing.event_texts import told
from broker.auditing.reading_events import EventFilters, EventRead
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.paging import Page
from broker.identity.caller import Caller
from broker.identity.nouns import Display
from broker.web import exporting
from broker.web.api.common import CallerNow, PartsNow, VendorFilter, WindowNow
from broker.web.api.verbs import At, verb
from broker.web.validation import Shown

router = APIRouter(prefix="/events", tags=["events"])
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


@verb(router, "GET", "", Page[EventShown], listed=_DISPLAY.described("event"))
def list_events(at: At, window: WindowNow, filters: FiltersNow) -> Page[EventShown]:
    """Events, newest first: all for admins and auditors, for others what they did or what was done to them."""
    filters = reading_events.with_ids(at.tx, at.caller, filters)
    page = reading_events.list_events(at.tx, at.caller, window, filters)
    return Page(items=_shown(at.tx, at.caller, page.items), next_cursor=page.next_cursor)


@router.get(
    "/export",
    operation_id="export_events",
    response_class=StreamingResponse,
    responses=exporting.responses("jsonl", "json", "csv", "proofs"),
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

    events = exporting.batches(parts, read)
    if form == "proofs":
        return exporting.file_of("events", form, bundles.lines(parts, caller, events))
    rows = ({**asdict(event), "at": event.at.isoformat()} for event in events)
    return exporting.file_of("events", form, exporting.written(form, _COLUMNS, rows))


@verb(router, "GET", "/{event_id}", EventShown)
def show_event(at: At, event_id: str) -> EventShown:
    """One event."""
    return _shown(at.tx, at.caller, [reading_events.one_event(at.tx, at.caller, event_id)])[0]


@router.get(
    "/{event_id}/proof",
    operation_id="prove_event",
    response_class=StreamingResponse,
    responses=exporting.responses("proofs"),
)
def prove_event(event_id: str, caller: CallerNow, parts: PartsNow) -> StreamingResponse:
    """That one event is in the log, for `guestkey audit verify`. For admins and auditors."""
    with parts.database.transaction() as tx:
        event = reading_events.one_event(tx, caller, event_id)
        proofs.checkpoint(tx, caller)
    return exporting.file_of(event.id, "proofs", bundles.lines(parts, caller, [event]))
