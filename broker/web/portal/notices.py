"""Notices in the portal: one's own list, and how one wants them."""

from __future__ import annotations

from zoneinfo import available_timezones

from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.notices import choices
from broker.web.portal.forms import Context, PortalRequest, form, page

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
