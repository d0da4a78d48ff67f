"""`/notice-channels`: webhooks and chats of the organisation, and what became of everything that was sent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from broker.base.paging import Page, Whole
from broker.identity.nouns import Display
from broker.models import Delivery, NoticeChannel
from broker.notices import channels
from broker.notices.channels import NewChannel
from broker.web.api.common import FreshCaller, Name, PartsNow, WindowNow
from broker.web.api.verbs import At, verb
from broker.web.validation import Shown, Strict

router = APIRouter(tags=["notices"])


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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "webhook",
                    "name": "Incidents",
                    "target": "https://hooks.example.org/guestkey",
                    "topics": ["failures", "emergency"],
                }
            ]
        }
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
