"""So many messages an hour and no more: nobody fills a mailbox or a channel by asking and withdrawing.

For people the rest waits for their digest. A channel has none: it is told how many it was spared. What is urgent is
never held back, and is sent before everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update

from broker.base.database import Transaction
from broker.base.ids import first_id, new_id
from broker.models import TOPICS, URGENT_TOPICS, Delivery
from broker.notices.rendering import render_notice

MAILS_AN_HOUR = 30
MESSAGES_AN_HOUR = 30
LEFT_OUT = "channel.left_out"
_SUMMED_UP_AFTER = timedelta(minutes=10)
_HELD_BACK = tuple(topic for topic in TOPICS if topic not in URGENT_TOPICS)


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
        summary = Delivery(
            id=new_id("dl"),
            notice_id=new_id("no"),
            channel_id=channel,
            kind=LEFT_OUT,
            topic="left_out",
            path="/events",
            state="waiting",
            left_out=1,
            created_at=now,
            next_attempt_at=now + _SUMMED_UP_AFTER,
        )
        tx.add(summary)
    words = render_notice(LEFT_OUT, {"count": summary.left_out, "most": MESSAGES_AN_HOUR}, you=False)
    summary.title, summary.body = words.title, words.body
    tx.flush()
