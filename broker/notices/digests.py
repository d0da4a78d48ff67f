"""Digests: once a day, at an hour of the person's choosing, one mail for everything they did not want at once."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import select, update

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.ids import new_id
from broker.models import Delivery, NoticeAddress
from broker.notices.rendering import render_digest
from broker.runtime.parts import Parts

KIND = "digest"
_MOST = 100


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
        items = tx.scalars(
            update(Delivery)
            .where(Delivery.person_id == due.person_id, Delivery.state == "digest")
            .values(state="collected")
            .returning(Delivery)
        ).all()
        if items and due.address:
            _make(tx, due.person_id, sorted(items, key=lambda item: item.id), str(parts.settings.public_url), now)
        return True


def _make(tx: Transaction, person_id: str, items: list[Delivery], public_url: str, now: datetime) -> None:
    words = render_digest([(item.title, public_url.rstrip("/") + item.path) for item in items[:_MOST]], len(items))
    tx.add(
        Delivery(
            id=new_id("dl"),
            notice_id=new_id("no"),
            person_id=person_id,
            kind=KIND,
            topic=KIND,
            title=words.title,
            body=words.body,
            path="/notices",
            state="waiting",
            created_at=now,
            next_attempt_at=now,
            read_at=now,
        )
    )
