"""`/events`: the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from broker.access import reading_events
from broker.web.api.common import CallerNow, PartsNow, WindowNow
from broker.web.validation import Shown

router = APIRouter(prefix="/events", tags=["events"])


class EventShown(Shown):
    """One event. `leaf` is its canonical JSON, for admins and auditors; `personal` is what has not been erased."""

    number: int
    id: str
    at: datetime
    kind: str
    actor: str
    subject: str
    details: dict[str, Any]
    personal: dict[str, str]
    leaf: str | None


class Events(BaseModel):
    """A page of events."""

    items: list[EventShown]
    next_cursor: str | None


@router.get("", operation_id="list_events")
def list_events(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    kind: Annotated[str | None, Query(max_length=64, examples=["lease.issued"])] = None,
    actor: Annotated[str | None, Query(max_length=80)] = None,
    subject: Annotated[str | None, Query(max_length=80)] = None,
) -> Events:
    """Events, newest first: all for admins and auditors, for others what they did or what was done to them."""
    filters = reading_events.EventFilters(kind, actor, subject)
    with parts.database.transaction() as tx:
        page = reading_events.list_events(tx, caller, window, filters)
    return Events(items=[EventShown.model_validate(item) for item in page.items], next_cursor=page.next_cursor)
