"""Channels: the page where admins bind webhooks and chats, try them, and see what became of everything sent."""

from __future__ import annotations

from starlette.responses import Response

from broker.notices import channels
from broker.notices.channels import NewChannel
from broker.notices.choices import every_topic
from broker.registry.naming import names_of
from broker.web.portal.forms import Context, PortalRequest, form, page
from broker.web.portal.pages import render

_PAGE = 30


@page("/settings/notices", template="notices/channels.html")
def notice_channels(req: PortalRequest) -> Context:
    """The channels, and the log of deliveries."""
    bound = channels.list_channels(req.tx, req.caller)
    log = channels.deliveries(req.tx, req.caller, req.window(_PAGE))
    return {
        "channels": bound,
        "log": log,
        "names": names_of(req.tx, {id_ for item in log.items for id_ in (item.person_id, item.channel_id) if id_}),
        "topics": every_topic(),
        "smtp": req.parts.settings.smtp_host,
    }


@form("/settings/notices", rerender=notice_channels)
def bind_channel(req: PortalRequest) -> str | Response:
    """Bind a channel; a webhook's secret is shown on the page this answers with, and never again."""
    topics = [topic.name for topic in every_topic() if req.field(f"topic-{topic.name}")]
    new = NewChannel(req.field("kind"), req.field("name").strip(), req.field("target").strip(), topics)
    bound = channels.bind(req.parts, req.caller, new)
    return render("notices/bound.html", viewer=req.viewer, bound=bound) if bound.secret else "/settings/notices"


@form("/settings/notices/{channel_id}/remove", rerender=notice_channels, needs=None)
def remove_channel(req: PortalRequest, channel_id: str) -> str:
    """Remove a channel."""
    channels.remove(req.tx, req.caller, channel_id, req.now)
    return "/settings/notices"


@form("/settings/notices/{channel_id}/test", rerender=notice_channels, needs=None)
def test_channel(req: PortalRequest, channel_id: str) -> str:
    """Have a test sent."""
    channels.test(req.parts, req.tx, req.caller, channel_id, req.now)
    return "/settings/notices"
