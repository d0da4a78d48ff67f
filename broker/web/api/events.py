"""`/events`: the audit log."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel

from broker.auditing import bundles, proofs, reading_events
from broker.auditing.reading_events import EventFilters, EventRead
from broker.auditing.telling import told
from broker.web import exporting
from broker.web.api.common import CallerNow, PartsNow, VendorFilter, WindowNow
from broker.web.validation import Shown

router = APIRouter(prefix="/events", tags=["events"])
_ENDINGS = {"proofs": "proofs.jsonl"}


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


class Events(BaseModel):
    """A page of events."""

    items: list[EventShown]
    next_cursor: str | None


def filters_of(
    kind: Annotated[str | None, Query(max_length=64, examples=["lease.issued"])] = None,
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


def _shown(event: EventRead, sentence: str) -> EventShown:
    return EventShown(**asdict(event), sentence=sentence)


FiltersNow = Annotated[EventFilters, Depends(filters_of)]


@router.get("", operation_id="list_events")
def list_events(caller: CallerNow, parts: PartsNow, window: WindowNow, filters: FiltersNow) -> Events:
    """Events, newest first: all for admins and auditors, for others what they did or what was done to them."""
    with parts.database.transaction() as tx:
        page = reading_events.list_events(tx, caller, window, reading_events.with_ids(tx, caller, filters))
        items = [_shown(event, sentence) for event, sentence in told(tx, caller, page.items)]
    return Events(items=items, next_cursor=page.next_cursor)


@router.get(
    "/export",
    operation_id="export_events",
    response_class=StreamingResponse,
    responses={200: {"content": {media: {} for media in exporting.MEDIA.values()}}},
)
def export_events(
    caller: CallerNow,
    parts: PartsNow,
    filters: FiltersNow,
    form: Annotated[
        exporting.Form, Query(alias="format", description="One event a line, one document, a table, or with proofs.")
    ] = "jsonl",
) -> StreamingResponse:
    """Every event of exactly this filter, oldest first, as it comes. For admins and auditors; recorded as an event."""
    filters = exporting.begin(parts, caller, filters, form)
    headers = {"Content-Disposition": f'attachment; filename="guestkey-events.{_ENDINGS.get(form, form)}"'}
    return StreamingResponse(
        exporting.written(parts, caller, filters, form), media_type=exporting.MEDIA[form], headers=headers
    )


@router.get("/{event_id}", operation_id="show_event")
def show_event(event_id: str, caller: CallerNow, parts: PartsNow) -> EventShown:
    """One event."""
    with parts.database.transaction() as tx:
        (found,) = told(tx, caller, [reading_events.one_event(tx, caller, event_id)])
        return _shown(*found)


@router.get(
    "/{event_id}/proof",
    operation_id="prove_event",
    response_class=StreamingResponse,
    responses={200: {"content": {exporting.MEDIA["proofs"]: {}}}},
)
def prove_event(event_id: str, caller: CallerNow, parts: PartsNow) -> StreamingResponse:
    """That one event is in the log, for `guestkey audit verify`. For admins and auditors."""
    with parts.database.transaction() as tx:
        event = reading_events.one_event(tx, caller, event_id)
        proofs.checkpoint(tx, caller)
    headers = {"Content-Disposition": f'attachment; filename="guestkey-{event.id}.proofs.jsonl"'}
    return StreamingResponse(
        bundles.lines(parts, caller, [event]), media_type=exporting.MEDIA["proofs"], headers=headers
    )
