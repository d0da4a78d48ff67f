"""Notices: one's own list, how one wants them, and the channels where admins bind webhooks and chats."""

from __future__ import annotations

from zoneinfo import available_timezones

from starlette.responses import Response

from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.notices import channels, choices
from broker.notices.channels import NewChannel
from broker.notices.choices import every_topic
from broker.registry.naming import names_of
from broker.web.portal.forms import Context, PortalRequest, act, form, page
from broker.web.portal.pages import render

_ZONES = sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/")))
_PAGE = 30


@page("/notices", template="notices/list.html")
def notices(req: PortalRequest) -> Context:
    """What the person was told, newest first."""
    found = choices.list_notices(req.tx, req.caller, req.window(_PAGE))
    return {"page": found, "unread": choices.unread(req.tx, req.caller.id)}


@form("/notices/read", rerender=notices, needs=None)
def read_notices(req: PortalRequest) -> str:
    """Mark as read what the page showed, and all before."""
    if not is_id(req.field("up_to")):
        raise Invalid("This form does not name a notice.", advice="Reload the page and send it again.")
    choices.mark_read(req.tx, req.caller, req.now, up_to=req.field("up_to"))
    return "/notices"


@page("/security/notices", template="notices/choices.html")
def notice_choices(req: PortalRequest) -> Context:
    """Which of them are mailed, and when."""
    return {
        "held": choices.preferences(req.tx, req.caller),
        "mails": req.parts.settings.smtp_host is not None,
        "zones": _ZONES,
        "saved": bool(req.asked("saved")),
    }


@form("/security/notices", rerender=notice_choices, needs=None)
def choose(req: PortalRequest) -> str:
    """Keep what was chosen."""
    wanted = {name: req.field(f"topic-{name}") for name in req.ticked("topic-")}
    hour, zone = req.field("digest_hour"), req.field("digest_zone").strip()
    if not (hour.isascii() and hour.isdigit() and len(hour) <= 2):
        raise Invalid("Choose an hour.", field="/digest_hour")
    choices.set_preferences(req.tx, req.caller, wanted, req.now, hour=int(hour), zone=zone)
    return "/security/notices?saved=yes"


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


act(
    "/settings/notices/{channel_id}/remove",
    channels.remove,
    rerender=notice_channels,
    needs=None,
    then="/settings/notices",
)


@form("/settings/notices/{channel_id}/test", rerender=notice_channels, needs=None)
def test_channel(req: PortalRequest, channel_id: str) -> str:
    """Have a test sent."""
    channels.test(req.parts, req.tx, req.caller, channel_id, req.now)
    return "/settings/notices"
