"""The worker's loop: woken by notifications, and by time for what nobody announces."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from time import monotonic

import psycopg
import structlog
from sqlalchemy import delete, update

from broker.base.database import Transaction, clock
from broker.base.errors import GuestkeyError
from broker.keystore.vault import Vault
from broker.leases import reconciling, renewing, sweeping
from broker.log import audit
from broker.models import (
    AuthorizationCode,
    DatasetDraft,
    FactorChallenge,
    Proposal,
    Request,
    SignInAttempt,
    StoredResponse,
)
from broker.notices.delivery_retries import NoticeSender
from broker.registry.slices import REGISTERING_CHANNEL
from broker.revocation import closing
from broker.revocation.ending import ENDING_CHANNEL
from broker.runtime import chores
from broker.runtime.chores import RECONCILE_SECONDS
from broker.runtime.parts import Parts
from broker.runtime.rulebook import CHANGED_CHANNEL
from broker.worker import guest_limits, sequencing, slice_registration
from broker.worker.guest_limits import LoginWatch

log = structlog.get_logger(__name__)
HOUSEKEEPING_SECONDS = 60.0
WITNESS_SECONDS = 5.0
LOG_SECONDS = 10.0
_NOTICE_SECONDS = 0.5
# What asks OpenBao or backends beside the ending, each on a thread of its own: none waits for another that hangs.
_BESIDE = 6
# Beyond the message under way: noting what became of it.
_LEAVING_SECONDS = 5.0


class Worker:
    """One worker process (or, in tests, thread). `run` returns after `stop`."""

    def __init__(self, parts: Parts, setup: Vault | None) -> None:
        self._parts = parts
        self._setup = setup
        self._stopping = threading.Event()
        self._due: dict[str, float] = {}
        self._background: dict[str, Future[None]] = {}
        self._rerun: set[str] = set()
        self._lent = False

    def stop(self, *_signal: object) -> None:
        """Finish what is under way, then leave `run`. Usable as a signal handler."""
        self._stopping.set()

    def install_signal_handlers(self) -> None:
        """Stop gracefully on SIGTERM and SIGINT."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)

    def run(self) -> None:
        """Work until stopped. Faults of backends are logged and tried again; they never end the worker."""
        # Sending notices has a thread of its own: whatever it waits for, ending goes on.
        postman = threading.Thread(
            target=NoticeSender(self._parts).run, args=(self._stopping,), name="postman", daemon=True
        )
        postman.start()
        # So has the watch over log-ins: it looks every second, whatever the rest waits for.
        doors = threading.Thread(target=LoginWatch(self._parts).run, args=(self._stopping,), name="doors", daemon=True)
        doors.start()
        with (
            ThreadPoolExecutor(sweeping.HANDS, thread_name_prefix="hand") as pool,
            ThreadPoolExecutor(_BESIDE, thread_name_prefix="beside") as others,
        ):
            listener: psycopg.Connection[tuple[object, ...]] | None = None
            while not self._stopping.is_set():
                pause = self._guarded(lambda: self._step(pool, others))
                listener = self._wait(listener, self._parts.settings.sweep_interval if pause is None else pause)
            if listener is not None:
                listener.close()
        settings = self._parts.settings
        postman.join(max(settings.smtp_timeout, settings.notice_timeout) + _LEAVING_SECONDS)
        if postman.is_alive():
            log.warning("worker.left_behind", part="postman")
        doors.join(_LEAVING_SECONDS)

    def _step(self, pool: ThreadPoolExecutor, others: ThreadPoolExecutor) -> float:
        parts, settings = self._parts, self._parts.settings
        self._every("witness", WITNESS_SECONDS, lambda: closing.update_witness(parts), others)
        closing.end_sessions_batch(parts)
        sweeping.mark_expired(parts)
        while sweeping.end_marked(parts, pool) == sweeping.BATCH and not self._stopping.is_set():
            continue
        if self._setup is not None:
            setup = self._setup
            self._run_in_background(others, "setup", lambda: self._set_up(setup))
            if not self._lent:
                self._run_in_background(others, "lend", lambda: self._lend_again(setup))
        self._shared(chores.REDECIDE, settings.redecide_interval, lambda: renewing.redecide_all(parts))
        self._shared(chores.RECONCILE, RECONCILE_SECONDS, lambda: reconciling.reconcile(parts).ended, others)
        self._shared(chores.GUEST_LIMITS, guest_limits.LIMITS_SECONDS, lambda: guest_limits.enforce(parts), others)
        self._every("log", LOG_SECONDS, lambda: sequencing.sequence(parts), others)
        self._every("housekeeping", HOUSEKEEPING_SECONDS, lambda: _tidy(parts))
        with parts.database.transaction() as tx:
            return sweeping.due_in(tx, clock(tx), most=settings.sweep_interval)

    def _set_up(self, setup: Vault) -> int:
        parts = self._parts
        self._guarded(lambda: slice_registration.register_waiting(parts, setup))
        self._guarded(lambda: slice_registration.read_catalogues(parts, setup))
        self._every("remove", HOUSEKEEPING_SECONDS, lambda: slice_registration.remove_retired(parts, setup))
        self._shared(
            chores.LOOK, slice_registration.LOOK_SECONDS, lambda: slice_registration.recheck_slices(parts, setup)
        )
        return 0

    def _lend_again(self, setup: Vault) -> int:
        # What earlier versions registered is ended by this one's statements from then on.
        done = slice_registration.refresh_statements(self._parts, setup, self._stopping.is_set)
        self._lent = True
        return done

    def _run_in_background(self, others: ThreadPoolExecutor, name: str, work: Callable[[], int]) -> None:
        """Run work that asks backends in turn on another thread: one that hangs must not delay ending credentials."""
        running = self._background.get(name)
        if running is None or running.done():
            self._background[name] = others.submit(self._run_until_settled, name, work)
        else:
            # Run again: work may have arrived meanwhile.
            self._rerun.add(name)

    def _run_until_settled(self, name: str, work: Callable[[], int]) -> None:
        self._guarded(work)
        while name in self._rerun and not self._stopping.is_set():
            self._rerun.discard(name)
            self._guarded(work)

    def _every(
        self, name: str, seconds: float, work: Callable[[], int], beside: ThreadPoolExecutor | None = None
    ) -> None:
        """Run work so often; `beside` the rest, if other threads are given: what asks OpenBao or a backend."""
        if monotonic() >= self._due.get(name, 0.0):
            self._due[name] = monotonic() + seconds
            self._run(name, work, beside)

    def _shared(
        self, name: str, seconds: float, work: Callable[[], int], beside: ThreadPoolExecutor | None = None
    ) -> None:
        """The same, where one of all workers is enough."""
        if monotonic() < self._due.get(name, 0.0):
            return
        wait = self._guarded(lambda: chores.take_on(self._parts.database, name, seconds))
        # Not known, when the records are out of reach: asked again at the next step.
        self._due[name] = monotonic() + (seconds if wait == 0.0 else wait or 0.0)
        if wait == 0.0:
            self._run(name, work, beside)

    def _run(self, name: str, work: Callable[[], int], beside: ThreadPoolExecutor | None) -> None:
        if beside is not None:
            self._run_in_background(beside, name, work)
        else:
            self._guarded(work)

    def _guarded(self, work: Callable[[], float | int]) -> float | None:
        try:
            return work()
        except GuestkeyError as error:
            log.warning("worker.fault", code=error.code, detail=error.detail)
        except Exception as error:  # a worker that dies of one bad row would end nothing any more
            log.exception("worker.unexpected", error=type(error).__name__)
        return None

    def _wait(
        self, listener: psycopg.Connection[tuple[object, ...]] | None, seconds: float
    ) -> psycopg.Connection[tuple[object, ...]] | None:
        """Sleep until notified, at most `seconds`; without PostgreSQL, just sleep."""
        try:
            if listener is None or listener.closed:
                listener = self._listen()
            end = monotonic() + seconds
            # In short waits, so that a signal to stop is noticed.
            while not self._stopping.is_set() and (left := end - monotonic()) > 0:
                for notice in listener.notifies(timeout=min(left, _NOTICE_SECONDS), stop_after=1):
                    if notice.channel == CHANGED_CHANNEL:
                        self._due[chores.REDECIDE] = 0.0
                    return listener
            return listener
        except psycopg.Error:
            if listener is not None:
                listener.close()
            self._stopping.wait(min(1.0, seconds))
            return None

    def _listen(self) -> psycopg.Connection[tuple[object, ...]]:
        timeout = max(2, int(self._parts.settings.database_timeout))
        url = str(self._parts.settings.database_url.get_secret_value())
        listener = psycopg.connect(url, autocommit=True, connect_timeout=timeout, application_name="guestkey-worker")
        listener.execute(f"LISTEN {ENDING_CHANNEL}")
        listener.execute(f"LISTEN {CHANGED_CHANNEL}")
        listener.execute(f"LISTEN {REGISTERING_CHANNEL}")
        return listener


def _tidy(parts: Parts) -> int:
    """Lapse what is overdue, delete what has expired. Returns how many lapsed."""
    with parts.database.transaction_now() as (tx, now):
        lapsed = _lapse(tx, now)
        for record in (SignInAttempt, FactorChallenge, StoredResponse, DatasetDraft):
            tx.execute(delete(record).where(record.expires_at < now))
        # Kept for a while after their minute, because a replayed code must still be recognised as one.
        tx.execute(delete(AuthorizationCode).where(AuthorizationCode.expires_at < now - timedelta(days=1)))
        return lapsed


def _lapse(tx: Transaction, now: datetime) -> int:
    lapsed = 0
    for record, noun in ((Request, "request"), (Proposal, "proposal")):
        overdue = update(record).where(record.state == "pending", record.lapses_at <= now)
        ids = tx.scalars(overdue.values(state="lapsed", decided_at=now).returning(record.id)).all()
        audit.record_many(tx, f"{noun}.lapsed", actor=audit.SYSTEM, now=now, about=[(id_, {}) for id_ in ids])
        lapsed += len(ids)
    return lapsed
