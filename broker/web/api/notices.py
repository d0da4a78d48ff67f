"""`/notices`: one's own notices, and how one wants them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.identity.nouns import Display
from broker.notices import choices
from broker.notices.choices import NoticePreferences
from broker.runtime.parts import Parts
from broker.web.api.common import Id, WindowNow
from broker.web.api.verbs import At, verb
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


class Notices(Shown):
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


class TopicShown(Shown):
    """A topic and what is chosen: `now`, `digest` or `off`. `mandatory`: it always comes at once."""

    name: str
    title: str
    about: str
    mandatory: bool
    choice: str


class ChoicesShown(Shown):
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


_DISPLAY = Display(columns="at=created_at@, title, read=read_at@, id!", none="No notices yet.")


@verb(router, "GET", "", Notices, listed=_DISPLAY.described("notice"))
def list_notices(at: At, window: WindowNow) -> Notices:
    """What you were told, newest first, whether it was mailed or not."""
    return Notices.of(choices.list_notices(at.tx, at.caller, window), unread=choices.unread(at.tx, at.caller.id))


@verb(router, "POST", "/read", Unread)
def read_notices(at: At, body: ReadBody) -> Unread:
    """Mark as read all up to one; doing it again changes nothing."""
    if not is_id(body.up_to):
        raise Invalid("This is not an id.", field="/up_to")
    choices.mark_read(at.tx, at.caller, at.now, up_to=body.up_to)
    return Unread(unread=choices.unread(at.tx, at.caller.id))


@verb(router, "GET", "/choices", ChoicesShown)
def show_notice_choices(at: At) -> ChoicesShown:
    """Which notices are mailed to you, when, and where to."""
    return _shown(at.parts, choices.preferences(at.tx, at.caller))


@verb(router, "POST", "/choices", ChoicesShown)
def change_notice_choices(at: At, body: ChoicesBody) -> ChoicesShown:
    """Choose for each topic: at once, in a digest once a day, or not by mail."""
    held = choices.preferences(at.tx, at.caller)
    hour = held.digest_hour if body.digest_hour is None else body.digest_hour
    zone = held.digest_zone if body.digest_zone is None else body.digest_zone
    return _shown(at.parts, choices.set_preferences(at.tx, at.caller, body.topics, at.now, hour=hour, zone=zone))


def _shown(parts: Parts, held: NoticePreferences) -> ChoicesShown:
    topics = [TopicShown.of(topic, choice=choice) for topic, choice in held.topics]
    return ChoicesShown.of(held, mails=parts.settings.smtp_host is not None, topics=topics)
