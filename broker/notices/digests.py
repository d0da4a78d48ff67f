"""Not too many at once: digests once a day, and so many messages an hour.

A digest is one mail, at an hour of the person's choosing, for everything they did not want at once. Nobody fills a
mailbox or a channel by asking and withdrawing: for people the rest waits for their digest; a channel, which has none,
is told how many it was spared. What is urgent is never held back, and is sent before everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import ColumnElement, func, or_, select, update

from broker.base.database import Transaction, clock
from broker.base.errors import Invalid
from broker.base.ids import first_id, new_id
from broker.models import TOPICS, URGENT_TOPICS, Delivery, NoticeAddress
from broker.notices.rendering import render_digest, render_notice
from broker.runtime.parts import Parts

KIND = "digest"
_MOST = 100
MAILS_AN_HOUR = 30
MESSAGES_AN_HOUR = 30
LEFT_OUT = "channel.left_out"
_SUMMED_UP_AFTER = timedelta(minutes=10)
_HELD_BACK = tuple(topic for topic in TOPICS if topic not in URGENT_TOPICS)


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name in the IANA database.

    Raises:
        Invalid: there is none of that name.
    """
    if name not in available_timezones():
        raise Invalid(
            "There is no such time zone.", field="/digest_zone", advice="Name one like Europe/Berlin, or UTC."
        )
    return ZoneInfo(name)


def next_digest(now: datetime, hour: int, zone: str) -> datetime:
    """The first moment after `now` when clocks in that zone show that full hour."""
    there = now.astimezone(zone_of(zone))
    for days in (0, 1, 2):
        at = datetime.combine(there.date() + timedelta(days=days), time(hour), there.tzinfo)
        if at.timestamp() > now.timestamp():
            return at.astimezone(now.tzinfo)
    raise AssertionError("an hour comes within two days")


def collect(parts: Parts, now: datetime | None = None, *, most: int = 200) -> int:
    """Make one mail of each digest that is due by then; by PostgreSQL's clock unless given. Returns how many."""
    made = 0
    while made < most and _collect_one(parts, now):
        made += 1
    return made


def _collect_one(parts: Parts, now: datetime | None) -> bool:
    with parts.database.transaction() as tx:
        now = now or clock(tx)
        due = tx.scalars(
            select(NoticeAddress)
            .where(NoticeAddress.digest_at <= now)
            .order_by(NoticeAddress.digest_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if due is None:
            return False
        due.digest_at = None
        kept = update(Delivery).where(Delivery.person_id == due.person_id, Delivery.state == "digest")
        items = tx.scalars(kept.values(state="collected").returning(Delivery)).all()
        if items and due.address:
            _make(tx, due.person_id, sorted(items, key=lambda item: item.id), str(parts.settings.public_url), now)
        return True


def _make(tx: Transaction, person_id: str, items: list[Delivery], public_url: str, now: datetime) -> None:
    words = render_digest([(item.title, public_url.rstrip("/") + item.path) for item in items[:_MOST]], len(items))
    title, body = words.title, words.body
    tx.add(waiting(KIND, KIND, now, person_id=person_id, title=title, body=body, path="/notices", read_at=now))


def waiting(kind: str, topic: str, now: datetime, **values: object) -> Delivery:
    """A delivery without a notice in the outbox, to be sent now unless `next_attempt_at` says when."""
    kept = {"state": "waiting", "created_at": now, "next_attempt_at": now, **values}
    return Delivery(id=new_id("dl"), notice_id=new_id("no"), kind=kind, topic=topic, **kept)


def mailbox_full(tx: Transaction, person_id: str, now: datetime) -> bool:
    """Whether somebody was mailed as often within an hour as anybody is."""
    sent = (Delivery.person_id == person_id) & Delivery.state.in_(("waiting", "delivered", "given_up"))
    return _limit_reached(tx, sent, now, MAILS_AN_HOUR)


def channels_below_limit(tx: Transaction, channels: Sequence[str], topic: str, now: datetime) -> list[str]:
    """Those of the channels that get one more message now; the others are told later how many they were spared."""
    if topic in URGENT_TOPICS:
        return list(channels)
    admitted = []
    for channel in sorted(channels):
        if _limit_reached(tx, (Delivery.channel_id == channel) & Delivery.topic.in_(_HELD_BACK), now, MESSAGES_AN_HOUR):
            _note_suppressed(tx, channel, now)
        else:
            admitted.append(channel)
    return admitted


def _limit_reached(tx: Transaction, which: ColumnElement[bool], now: datetime, most: int) -> bool:
    within = select(Delivery.id).where(which, Delivery.id > first_id("dl", now - timedelta(hours=1))).limit(most)
    return tx.execute(select(func.count()).select_from(within.subquery())).scalar_one() >= most


def _note_suppressed(tx: Transaction, channel: str, now: datetime) -> None:
    unsent = (
        select(Delivery.id)
        .where(
            Delivery.channel_id == channel,
            Delivery.kind == LEFT_OUT,
            Delivery.state == "waiting",
            or_(Delivery.claimed_until.is_(None), Delivery.claimed_until < now),
        )
        .limit(1)
        .with_for_update()
    )
    summary = tx.scalars(
        update(Delivery)
        .where(Delivery.id.in_(unsent.scalar_subquery()))
        .values(left_out=Delivery.left_out + 1)
        .returning(Delivery)
    ).one_or_none()
    if summary is None:
        later = now + _SUMMED_UP_AFTER
        summary = waiting(
            LEFT_OUT, "left_out", now, channel_id=channel, path="/events", left_out=1, next_attempt_at=later
        )
        tx.add(summary)
    words = render_notice(LEFT_OUT, {"count": summary.left_out, "most": MESSAGES_AN_HOUR}, you=False)
    summary.title, summary.body = words.title, words.body
    tx.flush()
