"""`/notices`: one's own, and how one wants them. `/notice-channels`: webhooks and chats, and what was sent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.base.paging import Page, Whole
from broker.identity.nouns import Display
from broker.models import Delivery, NoticeChannel
from broker.notices import channels, choices
from broker.notices.channels import NewChannel
from broker.notices.choices import NoticePreferences
from broker.runtime.parts import Parts
from broker.web.api.common import At, FreshCaller, Id, Name, PartsNow, Shown, Strict, WindowNow, example, verb

router = APIRouter(tags=["notices"])


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

    model_config = example(topics={"own_requests": "digest"}, digest_hour=8, digest_zone="Europe/Berlin")


_DISPLAY = Display(columns="at=created_at@, title, read=read_at@, id!", none="No notices yet.")


@verb(router, "GET", "/notices", Notices, listed=_DISPLAY.described("notice"))
def list_notices(at: At, window: WindowNow) -> Notices:
    """What you were told, newest first, whether it was mailed or not."""
    return Notices.of(choices.list_notices(at.tx, at.caller, window), unread=choices.unread(at.tx, at.caller.id))


@verb(router, "POST", "/notices/read", Unread)
def read_notices(at: At, body: ReadBody) -> Unread:
    """Mark as read all up to one; doing it again changes nothing."""
    if not is_id(body.up_to):
        raise Invalid("This is not an id.", field="/up_to")
    choices.mark_read(at.tx, at.caller, at.now, up_to=body.up_to)
    return Unread(unread=choices.unread(at.tx, at.caller.id))


@verb(router, "GET", "/notices/choices", ChoicesShown)
def show_notice_choices(at: At) -> ChoicesShown:
    """Which notices are mailed to you, when, and where to."""
    return _shown(at.parts, choices.preferences(at.tx, at.caller))


@verb(router, "POST", "/notices/choices", ChoicesShown)
def change_notice_choices(at: At, body: ChoicesBody) -> ChoicesShown:
    """Choose for each topic: at once, in a digest once a day, or not by mail."""
    held = choices.preferences(at.tx, at.caller)
    hour = held.digest_hour if body.digest_hour is None else body.digest_hour
    zone = held.digest_zone if body.digest_zone is None else body.digest_zone
    return _shown(at.parts, choices.set_preferences(at.tx, at.caller, body.topics, at.now, hour=hour, zone=zone))


def _shown(parts: Parts, held: NoticePreferences) -> ChoicesShown:
    topics = [TopicShown.of(topic, choice=choice) for topic, choice in held.topics]
    return ChoicesShown.of(held, mails=parts.settings.smtp_host is not None, topics=topics)


class ChannelShown(Shown):
    """A channel. `shown`: its target without what may be secret in it."""

    id: str
    kind: str
    name: str
    shown: str
    topics: list[str]
    made_by: str
    created_at: datetime
    removed_at: datetime | None


class ChannelBound(ChannelShown):
    """A channel just bound. `secret`: what its webhooks are signed with, shown this once; empty for chats."""

    secret: str


class ChannelBody(Strict):
    """A channel to bind."""

    kind: Annotated[str, Field(max_length=20, description="`webhook`, or `chat`: an address as apprise writes it.")]
    name: Name
    target: Annotated[str, Field(min_length=1, max_length=500)]
    topics: Annotated[list[str], Field(min_length=1, max_length=20)]

    model_config = example(
        kind="webhook", name="Incidents", target="https://hooks.example.org/guestkey", topics=["failures", "emergency"]
    )


class DeliveryShown(Shown):
    """What became of one message. The words are not shown: they are somebody's."""

    id: str
    kind: str
    person_id: str | None
    channel_id: str | None
    state: str
    attempts: int
    last_fault: str
    created_at: datetime
    next_attempt_at: datetime
    ended_at: datetime | None


_CHANNELS = Display(
    columns="id!, kind, name, goes to=shown, topics",
    none="No webhooks or chats yet. Admins add them in the portal, under Channels.",
    command="notice channels",
)


@verb(router, "GET", "/notice-channels", Whole[ChannelShown], listed=_CHANNELS.described("channel"))
def list_notice_channels(at: At, window: WindowNow) -> Whole[NoticeChannel]:
    """The channels in use. For admins and auditors."""
    return Whole(items=list(channels.list_channels(at.tx, at.caller))[: window.limit])


@router.post("/notice-channels", operation_id="bind_notice_channel", status_code=201)
def bind_notice_channel(body: ChannelBody, caller: FreshCaller, parts: PartsNow) -> ChannelBound:
    """Bind a channel. Its target is never shown again, its secret only in this answer. For admins."""
    bound = channels.bind(parts, caller, NewChannel(**body.model_dump()))
    return ChannelBound.of(bound.channel, secret=bound.secret)


@verb(router, "POST", "/notice-channels/{channel_id}/remove", ChannelShown)
def remove_notice_channel(at: At, channel_id: str) -> NoticeChannel:
    """Remove a channel, its target and its secret with it. For admins."""
    return channels.remove(at.tx, at.caller, channel_id, at.now)


@verb(router, "POST", "/notice-channels/{channel_id}/test", DeliveryShown, status=202)
def test_notice_channel(at: At, channel_id: str) -> Delivery:
    """Have a test sent; the list of deliveries tells what became of it. For admins."""
    return channels.test(at.parts, at.tx, at.caller, channel_id, at.now)


_DELIVERIES = Display(
    columns=(
        "at=created_at@, about=kind, state, tries=attempts, last fault=last_fault, person=person_id!, "
        "channel=channel_id!"
    ),
    none="No deliveries yet.",
    command="notice deliveries",
)


@verb(router, "GET", "/notice-deliveries", Page[DeliveryShown], listed=_DELIVERIES.described("delivery"))
def list_notice_deliveries(at: At, window: WindowNow) -> Page[Delivery]:
    """What was sent or is to be, newest first, with the last fault. For admins and auditors."""
    return channels.deliveries(at.tx, at.caller, window)
