"""Sending what waits: claimed with a deadline by any number of workers, tried ever more slowly, given up in a day.

Mail and channels each have hands of their own, apart from the worker's ending work: a server that hangs holds up
neither the end of a credential nor the other way of telling. A way that fails is left alone for a while as a whole.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from time import monotonic
from typing import ParamSpec

import structlog
from sqlalchemy import ColumnElement, func, select, update

from broker.base import metrics
from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown, GuestkeyError
from broker.identity import sign_in_admission
from broker.log import audit
from broker.models import URGENT_TOPICS, Delivery
from broker.notices import channels, digests, outbox
from broker.outbound import smtp
from broker.outbound.smtp import NotSent
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
HANDS = 4
CLAIM_SECONDS = 90
PAUSE_SECONDS = 2.0
KEPT = timedelta(days=90)
GIVEN_UP_AFTER = timedelta(days=1)
_FIRST_RETRY = 15
_SLOWEST_RETRY = 3600
# A server that is back should not wait for an hour to be noticed.
_SLOWEST_WHOLE_RETRY = 300
_KEEPING_SECONDS = 60.0
P = ParamSpec("P")


class NoticeSender:
    """The worker's part that tells people. `run` returns once `stopping` is set."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keeping_due = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Tell and send until stopped. Faults are logged, counted and tried again."""
        with ThreadPoolExecutor(1, thread_name_prefix="channels") as beside:
            beside_mail = beside.submit(
                _forever, stopping, lambda: _guarded("channel", send_due, self._parts, "channel")
            )
            _forever(stopping, self.round)
            beside_mail.result()

    def round(self) -> int:
        """Tell, collect and mail once, each whatever became of the others. Returns how much there was to do."""
        done = _guarded("telling", outbox.deliver_outbox, self._parts)
        done += _guarded("digests", digests.collect, self._parts)
        done += _guarded("mail", send_due, self._parts, "mail")
        # Last: what waits to be sent is worth more than what time brings, and than what may be deleted.
        if monotonic() >= self._keeping_due:
            self._keeping_due = monotonic() + _KEEPING_SECONDS
            _guarded("lapsing", outbox.queue_expiring, self._parts)
            _guarded("tidying", outbox.delete_older, self._parts, KEPT)
        return done


def _forever(stopping: threading.Event, work: Callable[[], int]) -> None:
    while not stopping.is_set():
        if not work():
            stopping.wait(PAUSE_SECONDS)


def _guarded(part: str, work: Callable[P, int], *given: P.args, **named: P.kwargs) -> int:
    try:
        return work(*given, **named)
    except BackendDown as error:
        log.warning("notices.fault", part=part, backend=error.backend)
    except Exception as error:  # telling people must go on after one bad row
        log.exception("notices.unexpected", part=part, error=type(error).__name__)
    metrics.notice_faults.labels(part).inc()
    return 0


def send_due(parts: Parts, way: str, now: datetime | None = None) -> int:
    """Send a batch of what is due by mail or by channels. Returns how many were tried.

    Args:
        way: `mail` or `channel`.
        now: PostgreSQL's clock unless given.
    """
    with parts.database.transaction() as tx:
        now = now or clock(tx)
        claimed = _claim(tx, way, now)
    if not claimed:
        return 0
    send = _mail if way == "mail" else channels.send
    with ThreadPoolExecutor(HANDS, thread_name_prefix=way) as pool:
        list(pool.map(lambda delivery: _one(parts, delivery, send, now), claimed))
    return len(claimed)


def _claim(tx: Transaction, way: str, now: datetime) -> list[Delivery]:
    due = (
        select(Delivery.id)
        .where(
            Delivery.state == "waiting",
            Delivery.next_attempt_at <= now,
            (Delivery.claimed_until.is_(None)) | (Delivery.claimed_until < now),
            Delivery.person_id.is_not(None) if way == "mail" else Delivery.channel_id.is_not(None),
        )
        .order_by(Delivery.next_attempt_at)
        .with_for_update(skip_locked=True)
    )
    urgent = Delivery.topic.in_(URGENT_TOPICS)
    found = list(tx.scalars(due.where(urgent).limit(HANDS)))
    found += tx.scalars(due.where(~urgent).limit(HANDS - len(found)))
    claim = update(Delivery).where(Delivery.id.in_(found)).values(claimed_until=now + timedelta(seconds=CLAIM_SECONDS))
    return list(tx.scalars(claim.returning(Delivery)))


def _one(parts: Parts, delivery: Delivery, send: Callable[[Parts, Delivery, datetime], None], now: datetime) -> None:
    """Send one and note what became of it; if that cannot be noted, the claim runs out and it is sent again."""
    try:
        fault = _fault_of_sending(parts, delivery, send, now)
        if fault is not None:
            _note_fault(parts, delivery, fault, now)
        else:
            metrics.notices.labels(_channel_key(delivery), "delivered").inc()
            _note(parts, delivery, state="delivered", ended_at=now, last_fault="", claimed_until=None)
    except GuestkeyError as error:
        log.warning("notice.unnoted", delivery=delivery.id, code=error.code)


def _fault_of_sending(
    parts: Parts, delivery: Delivery, send: Callable[[Parts, Delivery, datetime], None], now: datetime
) -> NotSent | None:
    try:
        send(parts, delivery, now)
    except NotSent as fault:
        return fault
    except BackendDown:
        raise
    except Exception as error:  # noqa: BLE001  a plugin's own fault would leave it waiting for ever, as if never tried
        # Its name only: what a plugin raises may hold the target.
        return NotSent(f"It could not be sent ({type(error).__name__}).", whole=False)
    return None


def _mail(parts: Parts, delivery: Delivery, _now: datetime) -> None:
    with parts.database.transaction() as tx:
        found = sign_in_admission.deliverable_addresses(tx, [str(delivery.person_id)])
    if not found:
        raise NotSent("The person or their vendor is suspended, or they no longer have an address.", for_good=True)
    to = found[0].address
    letter = smtp.Mail(delivery.id, to, delivery.title, delivery.body, delivery.path, delivery.created_at)
    smtp.send(parts.settings, letter)


def _note_fault(parts: Parts, delivery: Delivery, fault: NotSent, now: datetime) -> None:
    log.warning("notice.not_sent", delivery=delivery.id, fault=str(fault), attempts=delivery.attempts + 1)
    metrics.notices.labels(_channel_key(delivery), "fault").inc()
    overdue = _same_channel(delivery) & (Delivery.created_at <= now - GIVEN_UP_AFTER)
    if fault.for_good or delivery.created_at <= now - GIVEN_UP_AFTER:
        all_overdue = fault.whole and not fault.for_good
        _give_up(parts, overdue if all_overdue else Delivery.id == delivery.id, str(fault), now)
        return
    wait = min(_SLOWEST_WHOLE_RETRY if fault.whole else _SLOWEST_RETRY, _FIRST_RETRY * 2 ** min(delivery.attempts, 10))
    # Jitter, so that what failed together does not come back together.
    again = now + timedelta(seconds=wait * random.uniform(0.75, 1.25))  # noqa: S311
    values = {"attempts": delivery.attempts + 1, "last_fault": str(fault)[:200]}
    _note(parts, delivery, **values, next_attempt_at=again, claimed_until=None)
    if not fault.whole:
        return
    with parts.database.transaction() as tx:
        # The rest of this way would meet the same fault: one try at a time finds out whether it is over.
        others = _same_channel(delivery) & (Delivery.id != delivery.id) & (Delivery.next_attempt_at < again)
        tx.execute(
            update(Delivery)
            .where(_lock_waiting(others))
            .values(next_attempt_at=again, attempts=func.greatest(Delivery.attempts, delivery.attempts + 1))
            .execution_options(synchronize_session=False)
        )
    _give_up(parts, overdue, str(fault), now)


def _channel_key(delivery: Delivery) -> str:
    return "mail" if delivery.channel_id is None else "channel"


def _same_channel(delivery: Delivery) -> ColumnElement[bool]:
    if delivery.channel_id is not None:
        return Delivery.channel_id == delivery.channel_id
    return Delivery.person_id.is_not(None)


def _lock_waiting(which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Those of them that still wait, locked in one order: the hands of one way meet a fault at the same moment."""
    waiting = select(Delivery.id).where(which, Delivery.state == "waiting").order_by(Delivery.id).with_for_update()
    return Delivery.id.in_(waiting)


def _note(parts: Parts, delivery: Delivery, **values: object) -> None:
    with parts.database.transaction() as tx:
        tx.execute(update(Delivery).where(Delivery.id == delivery.id, Delivery.state == "waiting").values(**values))


def _give_up(parts: Parts, which: ColumnElement[bool], fault: str, now: datetime) -> None:
    with parts.database.transaction() as tx:
        given_up = tx.execute(
            update(Delivery)
            .where(_lock_waiting(which))
            .values(state="given_up", ended_at=now, last_fault=fault[:200], claimed_until=None)
            .returning(Delivery.id, Delivery.channel_id)
        ).all()
        if given_up:
            subject, way = given_up[0].channel_id or given_up[0].id, "channel" if given_up[0].channel_id else "mail"
            metrics.notices.labels(way, "given_up").inc(len(given_up))
            details = {"deliveries": len(given_up), "way": way}
            audit.record(tx, "notice.given_up", actor=audit.SYSTEM, subject=subject, now=now, details=details)
