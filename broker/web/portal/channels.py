"""Channels: the page where admins bind webhooks and chats, try them, and see what became of everything sent."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.paging import Window
from broker.models import NoticeChannel, Person
from broker.notices import channels
from broker.notices.channels import NewChannel
from broker.notices.choices import every_topic
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_PAGE = 30


@router.get("/settings/notices")
def notice_channels(viewer: MemberNow, cursor: str | None = None) -> HTMLResponse:
    """The channels, and the log of deliveries."""
    return _page(Setback(viewer), {}, cursor=cursor)


@router.post("/settings/notices")
def bind_channel(viewer: MemberNow, sent: Sent) -> Response:
    """Bind a channel; a webhook's secret is shown on the page this answers with, and never again."""

    def do(viewer: Viewer) -> Response:
        topics = [topic.name for topic in every_topic() if sent.get(f"topic-{topic.name}")]
        new = NewChannel(sent.get("kind", ""), sent.get("name", "").strip(), sent.get("target", "").strip(), topics)
        bound = channels.bind(viewer.parts, viewer.caller, new)
        if not bound.secret:
            return go("/settings/notices")
        return render("notices/bound.html", viewer=viewer, bound=bound)

    return act(viewer, sent, do, lambda back: _page(back, sent), needs=fresh)


@router.post("/settings/notices/{channel_id}/remove")
def remove_channel(channel_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Remove a channel."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            channels.remove(tx, viewer.caller, channel_id, clock(tx))
        return go("/settings/notices")

    return act(viewer, sent, do, lambda back: _page(back, {}))


@router.post("/settings/notices/{channel_id}/test")
def test_channel(channel_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Have a test sent."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            channels.test(viewer.parts, tx, viewer.caller, channel_id, clock(tx))
        return go("/settings/notices")

    return act(viewer, sent, do, lambda back: _page(back, {}))


def _page(back: Setback, sent: Mapping[str, str], *, cursor: str | None = None) -> HTMLResponse:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        bound = channels.list_channels(tx, viewer.caller)
        log = channels.deliveries(tx, viewer.caller, Window(cursor, _PAGE))
        people = select(Person.id, Person.name).where(Person.id.in_({item.person_id for item in log.items}))
        names = {row.id: row.name or row.id for row in tx.execute(people)}
        used = select(NoticeChannel.id, NoticeChannel.name)
        named = used.where(NoticeChannel.id.in_({item.channel_id for item in log.items}))
        names |= {row.id: row.name for row in tx.execute(named)}
    return render(
        "notices/channels.html",
        status=back.status if back.trouble or back.panel else 200,
        viewer=viewer,
        channels=bound,
        log=log,
        names=names,
        topics=every_topic(),
        smtp=viewer.parts.settings.smtp_host,
        filled=sent,
        trouble=back.trouble,
        panel=back.panel,
    )
