"""From the outbox to deliveries: who is told, in which words, and how they want it. Sends nothing.

Each notice is one transaction. One that cannot be worded is tried again later and holds up no other. What time alone
brings about is put into the outbox here: grants, requests and proposals in the last quarter of their time, each once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction, clock
from broker.base.ids import new_id
from broker.identity import sign_in_admission
from broker.log import audit
from broker.models import URGENT_TOPICS, Delivery, Notice, NoticeAddress, NoticeChannel, NoticeChoice
from broker.notices import digests
from broker.notices.choices import MANDATORY
from broker.notices.digests import next_digest
from broker.notices.rendering import RenderedNotice, render_notice
from broker.notices.triggers import GRANT_LAPSING, PROPOSAL_LAPSING, REQUEST_LAPSING, TRIGGERS, Audience
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
_URGENT = tuple(kind for kind, cause in TRIGGERS.items() if cause.topic in URGENT_TOPICS)
_MOST_ATTEMPTS = 20
_SLOWEST_RETRY = 3600
_MOST_TIDIED = 5000
_GRANTS_SOON = timedelta(days=3)
_UNTOLD = "NOT EXISTS (SELECT FROM guestkey.notice n WHERE n.once = :kind || ' ' || due.id)"
# Whoever asked for less than a day knows when it ends.
_GRANTS = """
    SELECT due.id FROM guestkey."grant" due
      JOIN guestkey.dataset d ON d.id = due.dataset_id AND d.status = 'active'
      LEFT JOIN guestkey.person p ON p.id = due.person_id
      LEFT JOIN guestkey.team t ON t.id = due.team_id
      LEFT JOIN guestkey.service s ON s.id = due.service_id
      LEFT JOIN guestkey.vendor v ON v.id = coalesce(p.vendor_id, t.vendor_id, s.vendor_id)
     WHERE due.revoked_at IS NULL AND due.ends_at > :now AND due.ends_at <= :soon
       AND due.ends_at - due.starts_at >= interval '1 day'
       AND due.ends_at - :now <= (due.ends_at - due.starts_at) / 4
       AND (v.id IS NULL OR v.status IN ('onboarding', 'active'))
"""
_REQUESTS = """
    SELECT due.id FROM guestkey.request due
      JOIN guestkey.dataset d ON d.id = due.dataset_id AND d.status = 'active'
      JOIN guestkey.person p ON p.id = due.person_id
      LEFT JOIN guestkey.vendor v ON v.id = p.vendor_id
     WHERE due.state = 'pending' AND due.lapses_at > :now
       AND due.lapses_at - :now <= (due.lapses_at - due.created_at) / 4
       AND (v.id IS NULL OR v.status IN ('onboarding', 'active'))
"""
_PROPOSALS = """
    SELECT due.id FROM guestkey.proposal due
     WHERE due.state = 'pending' AND due.lapses_at > :now
       AND due.lapses_at - :now <= (due.lapses_at - due.created_at) / 4
"""
KINDS: Mapping[str, str] = {GRANT_LAPSING: _GRANTS, REQUEST_LAPSING: _REQUESTS, PROPOSAL_LAPSING: _PROPOSALS}
_MOST = 500


def deliver_outbox(parts: Parts, *, most: int = 200) -> int:
    """Turn what waits in the outbox into deliveries, what is urgent first. Returns how many notices were told."""
    told = 0
    for which in (Notice.kind.in_(_URGENT), Notice.kind.not_in(_URGENT)):
        while told < most and _deliver_next(parts, which):
            told += 1
    return told


def _deliver_next(parts: Parts, which: ColumnElement[bool]) -> bool:
    notice_id = ""
    try:
        with parts.database.transaction_now() as (tx, now):
            notice = tx.scalars(
                select(Notice)
                .where(Notice.told_at.is_(None), Notice.next_attempt_at <= now, which)
                .order_by(Notice.next_attempt_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if notice is None:
                return False
            notice_id = notice.id
            _deliver(tx, notice, now, mails=parts.settings.smtp_host is not None)
            notice.told_at = now
    except Exception as error:  # one bad row must not silence all others
        if not notice_id:
            raise
        log.exception("notice.untold", notice=notice_id, error=type(error).__name__)
        _postpone(parts, notice_id)
    return True


def _postpone(parts: Parts, notice_id: str) -> None:
    with parts.database.transaction_now() as (tx, now):
        notice = tx.get_one(Notice, notice_id)
        notice.attempts += 1
        notice.next_attempt_at = now + timedelta(seconds=min(_SLOWEST_RETRY, 15 * 2 ** min(notice.attempts, 10)))
        if notice.attempts >= _MOST_ATTEMPTS:
            notice.told_at = now
            details = {"kind": notice.kind, "about": notice.subject}
            audit.record(tx, "notice.given_up", actor=audit.SYSTEM, subject=notice.id, now=now, details=details)


def _deliver(tx: Transaction, notice: Notice, now: datetime, *, mails: bool) -> None:
    cause = TRIGGERS[notice.kind]
    told = cause.told(tx, notice, now)
    if told is None:
        return
    theirs, beside = (
        render_notice(notice.kind, told.facts, you=told.you),
        render_notice(notice.kind, told.facts, you=False),
    )
    beside_topic = told.beside_topic or cause.topic
    passed_over = set() if cause.to_actor else {notice.actor.removeprefix("person:")}
    rows = []
    for people, words, topic in ((told.people, theirs, cause.topic), (told.beside, beside, beside_topic)):
        concerned = [person for person in dict.fromkeys(people) if person not in passed_over]
        passed_over.update(concerned)
        rows += [
            _row(notice, told, words, now, topic=topic, state=state, person_id=person)
            for person, state in _states(tx, concerned, topic, now, mails=mails).items()
        ]
    takes = or_(*(NoticeChannel.topics.contains([topic]) for topic in {cause.topic, beside_topic}))
    bound = select(NoticeChannel.id).where(NoticeChannel.removed_at.is_(None), takes)
    takers = tx.scalars(bound).all() if told.channels else []
    rows += [
        _row(notice, told, beside, now, topic=cause.topic, state="waiting", channel_id=channel)
        for channel in digests.channels_below_limit(tx, takers, cause.topic, now)
    ]
    if rows:
        tx.execute(insert(Delivery).on_conflict_do_nothing(), rows)


def _row(notice: Notice, told: Audience, words: RenderedNotice, now: datetime, **rest: str) -> dict[str, object]:
    return {
        "id": new_id("dl"),
        "notice_id": notice.id,
        "person_id": None,
        "channel_id": None,
        "kind": notice.kind,
        "title": words.title,
        "body": words.body,
        "path": told.path,
        "created_at": now,
        "next_attempt_at": now,
        **rest,
    }


def _states(tx: Transaction, people: Sequence[str], topic: str, now: datetime, *, mails: bool) -> dict[str, str]:
    """For each person, what becomes of it first: kept in the portal, sent at once, or kept for their digest."""
    states = dict.fromkeys(people, "portal")
    if not mails or not people:
        return states
    choices = select(NoticeChoice).where(NoticeChoice.person_id.in_(people), NoticeChoice.topic == topic)
    chosen = {row.person_id: row.choice for row in tx.scalars(choices)}
    for address in sign_in_admission.deliverable_addresses(tx, people):
        choice = "now" if topic in MANDATORY else chosen.get(address.person_id, "now")
        if choice == "now" and topic not in MANDATORY and digests.mailbox_full(tx, address.person_id, now):
            choice = "digest"
        states[address.person_id] = {"now": "waiting", "digest": "digest", "off": "portal"}[choice]
        if choice == "digest":
            _begin_digest(tx, address, now)
    return states


def _begin_digest(tx: Transaction, address: NoticeAddress, now: datetime) -> None:
    due = next_digest(now, address.digest_hour, address.digest_zone)
    # Not by what was read: a worker that collects the one before may not have committed that there is none now.
    tx.execute(
        update(NoticeAddress)
        .where(NoticeAddress.person_id == address.person_id)
        .values(digest_at=func.coalesce(NoticeAddress.digest_at, due))
        .execution_options(synchronize_session=False)
    )


def delete_older(parts: Parts, kept: timedelta) -> int:
    """Delete what was told longer ago than `kept`: the log of events is what stays. Returns how many."""
    with parts.database.transaction() as tx:
        before = clock(tx) - kept
        old = select(Delivery.id).where(Delivery.created_at < before).limit(_MOST_TIDIED)
        gone = tx.scalars(delete(Delivery).where(Delivery.id.in_(old)).returning(Delivery.id)).all()
        past = select(Notice.id).where(Notice.told_at < before).limit(_MOST_TIDIED)
        tx.execute(delete(Notice).where(Notice.id.in_(past)))
        return len(gone)


def queue_expiring(parts: Parts) -> int:
    """Put what is about to lapse into the outbox. Returns how many."""
    with parts.database.transaction() as tx:
        return sum(_queue(tx, kind, due) for kind, due in KINDS.items())


def _queue(tx: Transaction, kind: str, due: str) -> int:
    now = clock(tx)
    given = {"kind": kind, "now": now, "most": _MOST} | ({"soon": now + _GRANTS_SOON} if ":soon" in due else {})
    found = tx.scalars(text(f"{due} AND {_UNTOLD} LIMIT :most"), given)
    rows = [
        {"id": new_id("no"), "kind": kind, "actor": "system", "subject": id_, "once": f"{kind} {id_}"} for id_ in found
    ]
    if rows:
        tx.execute(insert(Notice).on_conflict_do_nothing(), rows)
    return len(rows)
