"""Notices in the portal: one's own list, and how one wants them."""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import available_timezones

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.base.paging import Window
from broker.notices import choices
from broker.web.portal.acting import Setback, act, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_ZONES = sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/")))
_PAGE = 30


@router.get("/notices")
def notices(viewer: MemberNow, cursor: str | None = None) -> HTMLResponse:
    """What the person was told, newest first."""
    with viewer.parts.database.transaction() as tx:
        found = choices.list_notices(tx, viewer.caller, Window(cursor, _PAGE))
        unread = choices.unread(tx, viewer.caller.id)
    return render("notices/list.html", viewer=viewer, page=found, unread=unread)


@router.post("/notices/read")
def read_notices(viewer: MemberNow, sent: Sent) -> Response:
    """Mark as read what the page showed, and all before."""
    up_to = sent.get("up_to", "")
    if not is_id(up_to):
        raise Invalid("This form does not name a notice.", advice="Reload the page and send it again.")
    with viewer.parts.database.transaction() as tx:
        choices.mark_read(tx, viewer.caller, clock(tx), up_to=up_to)
    return go("/notices")


@router.get("/security/notices")
def notice_choices(viewer: MemberNow, saved: str | None = None) -> HTMLResponse:
    """Which of them are mailed, and when."""
    return _choices(Setback(viewer), {}, saved=saved is not None)


@router.post("/security/notices")
def choose(viewer: MemberNow, sent: Sent) -> Response:
    """Keep what was chosen."""

    def do(viewer: Viewer) -> Response:
        wanted = {name.removeprefix("topic-"): value for name, value in sent.items() if name.startswith("topic-")}
        hour = sent.get("digest_hour", "")
        if not (hour.isascii() and hour.isdigit() and len(hour) <= 2):
            raise Invalid("Choose an hour.", field="/digest_hour")
        with viewer.parts.database.transaction() as tx:
            choices.set_preferences(
                tx, viewer.caller, wanted, clock(tx), hour=int(hour), zone=sent.get("digest_zone", "").strip()
            )
        return go("/security/notices?saved=yes")

    return act(viewer, sent, do, lambda back: _choices(back, sent))


def _choices(back: Setback, sent: Mapping[str, str], *, saved: bool = False) -> HTMLResponse:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        held = choices.preferences(tx, viewer.caller)
    return render(
        "notices/choices.html",
        status=back.status if back.trouble else 200,
        viewer=viewer,
        held=held,
        mails=viewer.parts.settings.smtp_host is not None,
        zones=_ZONES,
        filled=sent,
        saved=saved,
        trouble=back.trouble,
    )
