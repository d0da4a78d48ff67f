"""`/notices`: one's own notices, and how one wants them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.notices import choices
from broker.notices.choices import NoticePreferences
from broker.runtime.parts import Parts
from broker.web.api.common import CallerNow, Id, PartsNow, WindowNow
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/notices", tags=["notices"])


class NoticeShown(Shown):
    """One notice. `path`: the page of the portal that it is about."""

    id: str
    kind: str
    topic: str
    title: str
    body: str
    path: str
    created_at: datetime
    read_at: datetime | None


class Notices(BaseModel):
    """A page of them, and how many are unread (counted up to 100)."""

    items: list[NoticeShown]
    next_cursor: str | None
    unread: int


class ReadBody(Strict):
    """The newest one that was seen."""

    up_to: Id


class Unread(BaseModel):
    """How many are unread, counted up to 100."""

    unread: int


class TopicShown(BaseModel):
    """A topic and what is chosen: `now`, `digest` or `off`. `mandatory`: it always comes at once."""

    name: str
    title: str
    about: str
    mandatory: bool
    choice: str


class ChoicesShown(BaseModel):
    """What you chose. `address`: where mails go; empty: nowhere. `mails`: whether this installation sends any."""

    address: str
    mails: bool
    digest_hour: int
    digest_zone: str
    topics: list[TopicShown]


class ChoicesBody(Strict):
    """What to change; topics that are not named stay as they are."""

    topics: Annotated[dict[str, str], Field(default_factory=dict, max_length=20)]
    digest_hour: Annotated[int | None, Field(ge=0, le=23, description="By the clocks of the zone.")] = None
    digest_zone: Annotated[str | None, Field(max_length=64, description="As in the IANA database.")] = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"topics": {"own_requests": "digest"}, "digest_hour": 8, "digest_zone": "Europe/Berlin"}]
        }
    )


@router.get("", operation_id="list_notices")
def list_notices(caller: CallerNow, parts: PartsNow, window: WindowNow) -> Notices:
    """What you were told, newest first, whether it was mailed or not."""
    with parts.database.transaction() as tx:
        found = choices.list_notices(tx, caller, window)
        items = [NoticeShown.model_validate(item) for item in found.items]
        return Notices(items=items, next_cursor=found.next_cursor, unread=choices.unread(tx, caller.id))


@router.post("/read", operation_id="read_notices")
def read_notices(body: ReadBody, caller: CallerNow, parts: PartsNow) -> Unread:
    """Mark as read all up to one; doing it again changes nothing."""
    if not is_id(body.up_to):
        raise Invalid("This is not an id.", field="/up_to")
    with parts.database.transaction() as tx:
        choices.mark_read(tx, caller, clock(tx), up_to=body.up_to)
        return Unread(unread=choices.unread(tx, caller.id))


@router.get("/choices", operation_id="show_notice_choices")
def show_notice_choices(caller: CallerNow, parts: PartsNow) -> ChoicesShown:
    """Which notices are mailed to you, when, and where to."""
    with parts.database.transaction() as tx:
        return _shown(parts, choices.preferences(tx, caller))


@router.post("/choices", operation_id="change_notice_choices")
def change_notice_choices(body: ChoicesBody, caller: CallerNow, parts: PartsNow) -> ChoicesShown:
    """Choose for each topic: at once, in a digest once a day, or not by mail."""
    with parts.database.transaction() as tx:
        held = choices.preferences(tx, caller)
        hour = held.digest_hour if body.digest_hour is None else body.digest_hour
        zone = held.digest_zone if body.digest_zone is None else body.digest_zone
        return _shown(parts, choices.set_preferences(tx, caller, body.topics, clock(tx), hour=hour, zone=zone))


def _shown(parts: Parts, held: NoticePreferences) -> ChoicesShown:
    return ChoicesShown(
        address=held.address,
        mails=parts.settings.smtp_host is not None,
        digest_hour=held.digest_hour,
        digest_zone=held.digest_zone,
        topics=[
            TopicShown(name=topic.name, title=topic.title, about=topic.about, mandatory=topic.mandatory, choice=choice)
            for topic, choice in held.topics
        ],
    )
