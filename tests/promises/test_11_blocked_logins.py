"""Promise 11: a guest of PostgreSQL that makes every log-in wait is ended, and so is whoever is to end meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import cast

import psycopg
import pytest

from broker.base.errors import BackendDown
from broker.embedded.example import watch_log_ins
from broker.embedded.stack import Stack
from broker.kinds.discovery import kinds
from broker.kinds.postgres.kind import CONFIRMED, PostgresKind
from broker.kinds.postgres.sessions import end_login_blockers, watch_session
from broker.models import Slice
from broker.worker.guest_limits import LoginWatch, watcher_of
from broker.worker.worker import Worker
from tests.support.fighter import DECLARED_SECONDS, Fighter, end
from tests.support.fighting import Session, reads
from tests.support.waiting import until
from tests.support.world import World

# The one that the worker has a session with.
WORKERS = cast(PostgresKind, kinds["postgres"])
PLACE = ("postgres", "data")
# With another's log-in in the middle, on a slow machine.
FEW_SECONDS = 10.0
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 1262 AND NOT granted"
SHUTTING = ["DROP DATABASE data", "ALTER DATABASE data RENAME TO x", "ALTER DATABASE data SET TABLESPACE pg_default"]
# PostgreSQL looks for signals when it is done, some seconds later.
DEAF = "SELECT length(translate(repeat('z', 30000), repeat('a', 30000), ''))"


def keeps_open(session: Session, user: str) -> None:
    """Hold the database in a transaction, so that whoever asks for it itself has to wait."""
    for statement in (
        "SET idle_in_transaction_session_timeout = 0",
        "BEGIN",
        f"ALTER ROLE {user} IN DATABASE data SET work_mem = '1MB'",
    ):
        session.execute(statement)


class Shutting:
    """One session that holds the database and one that asks for it; again: as soon as one is ended, the next."""

    def __init__(self, fighter: Fighter, statement: str, busy: str, *, again: bool) -> None:
        self._fighter, self._statement, self._busy, self._rerun = fighter, statement, busy, again
        self.stop, self.ended = threading.Event(), threading.Event()

    def hold(self) -> None:
        """Until told to stop, or ended."""
        while not self.stop.wait(0.02):
            with suppress(psycopg.Error), self._fighter.session() as session:
                keeps_open(session, self._fighter.user)
                while not self.stop.wait(0.05):
                    session.execute(self._busy)
            if not self._rerun:
                return

    def ask(self) -> None:
        """Wait for the database. Where nobody holds it at that moment, it is refused at once."""
        while not self.stop.wait(0.02):
            try:
                with self._fighter.session() as session:
                    session.execute("SET statement_timeout = 0")
                    with suppress(psycopg.errors.InsufficientPrivilege):
                        session.execute(self._statement)
            except psycopg.Error:
                self.ended.set()
            if not self._rerun:
                return


@contextmanager
def shut(
    fighter: Fighter, watch: Session, statement: str = SHUTTING[0], *, busy: str = "SELECT 1", again: bool = False
) -> Iterator[None]:
    """A guest shuts the door for as long as the block runs, or until it is ended."""
    shutting = Shutting(fighter, statement, busy, again=again)
    threads = [threading.Thread(target=each) for each in (shutting.hold, shutting.ask)]
    threads[0].start()
    time.sleep(0.5)
    threads[1].start()
    try:
        until(lambda: shutting.ended.is_set() or watch.execute(WAITING).fetchone() != (0,), what="the shut door")
        yield
    finally:
        shutting.stop.set()
        watch.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (fighter.user,))
        for thread in threads:
            thread.join(30)


@pytest.fixture
def admin(world: World) -> Iterator[Session]:
    """A superuser's session, which must be there before the door is shut."""
    with closing(world.admin()) as session:
        yield session


@pytest.fixture
def kept(world: World) -> Iterator[None]:
    """The worker's part that keeps doors open, once it has its session."""
    stop = threading.Event()
    keeping = threading.Thread(target=LoginWatch(world.ender).run, args=(stop,))
    keeping.start()
    watcher_of(world.ender, PLACE)()
    yield
    stop.set()
    keeping.join(20)
    assert not keeping.is_alive()


@pytest.mark.parametrize("statement", SHUTTING)
def test_guest_locking_the_database_is_ended_at_the_next_check(world: World, admin: Session, statement: str) -> None:
    fighter = Fighter(world)
    with closing(watch_session(world.ender.vault, "data")) as watch, shut(fighter, admin, statement):
        assert fighter.user in end_login_blockers(watch)
        watch_session(world.ender.vault, "data").close()


def test_database_without_the_check_function_is_unchanged(world: World, admin: Session) -> None:
    """One connected before: every log-in waits, which is said, and nothing else goes wrong."""
    fighter = Fighter(world)
    with closing(watch_session(world.ender.vault, "data")) as watch:
        admin.execute("ALTER FUNCTION guestkey_ops.keep_door_open(interval) RENAME TO later")
        try:
            assert end_login_blockers(watch) == []
            with shut(fighter, admin), pytest.raises(BackendDown, match="leaves log-ins waiting"):
                watch_session(world.ender.vault, "data")
        finally:
            admin.execute("ALTER FUNCTION guestkey_ops.later(interval) RENAME TO keep_door_open")


def test_guest_blocking_logins_and_a_reader_end_in_time(world: World, admin: Session, kept: None) -> None:
    fighter, reader = Fighter(world), Fighter(world)
    with reader.session() as session, shut(fighter, admin, again=True):
        for ending in (reader, fighter):
            said, took = end(world, [ending], WORKERS)
            assert (said, took < DECLARED_SECONDS) == ([CONFIRMED], True)
        assert not reads(session, reader.view)


@pytest.mark.parametrize("whose", ["whoever shuts it", "a reader"])
def test_ending_does_not_wait_for_the_next_check(world: World, admin: Session, whose: str) -> None:
    fighter, reader = Fighter(world), Fighter(world)
    watcher_of(world.ender, PLACE)()
    ending = reader if whose == "a reader" else fighter
    with ending.session() as session, shut(fighter, admin):
        said, took = end(world, [ending], WORKERS)
        assert (said, took < DECLARED_SECONDS) == ([CONFIRMED], True)
        assert not reads(session, ending.view)


def test_reader_ends_in_time_beside_an_uninterruptible_guest(world: World, admin: Session, kept: None) -> None:
    """Its session is told to end, and does so after its statement: its own end may need another attempt."""
    fighter, reader = Fighter(world), Fighter(world)
    with reader.session() as session, shut(fighter, admin, busy=DEAF, again=True):
        said, took = end(world, [fighter, reader], WORKERS)
        assert (said[1], took < DECLARED_SECONDS) == (CONFIRMED, True)
        assert not reads(session, reader.view)


def test_other_guests_can_log_in_while_logins_are_blocked(world: World, admin: Session, kept: None) -> None:
    fighter, (signed, dataset, _) = Fighter(world), world.guest()
    with shut(fighter, admin, again=True):
        began = time.monotonic()
        handed = world.issue(signed, dataset)
        world.connect(handed).close()
        assert time.monotonic() - began < FEW_SECONDS


@pytest.fixture
def no_session() -> None:
    """No test before has left the worker one."""
    WORKERS.persistent.close()


def test_running_worker_checks_for_login_blockers(
    world: World, admin: Session, no_session: None, worker: Worker
) -> None:
    fighter, other = Fighter(world), Fighter(world)
    with other.session() as session:
        until(lambda: standing(admin), what="the worker's session")
        with shut(fighter, admin):
            world.connect(other.handed).close()
            assert reads(session, other.view)


def standing(admin: Session) -> bool:
    """Whether the worker has its session."""
    idle = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'guestkey_watch' AND state = 'idle in transaction'"
    return admin.execute(idle).fetchone() != (0,)


def test_broken_standing_session_is_reopened(world: World, admin: Session, kept: None) -> None:
    """As after a restart of the server: not only when it is needed."""
    sessions = "SELECT pid FROM pg_stat_activity WHERE usename = 'guestkey_watch' AND state = 'idle in transaction'"
    # The part has a thread for each server that slices are on.
    world.dataset()
    until(lambda: admin.execute(sessions).fetchall(), what="the worker's session")
    before = admin.execute(sessions).fetchall()
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guestkey_watch'")
    until(lambda: set(admin.execute(sessions).fetchall()) - set(before), what="another session")


def test_slice_is_registered_while_a_guest_holds_the_database_row(world: World, kept: None) -> None:
    fighter = Fighter(world)
    with ExitStack() as open_sessions:
        session = open_sessions.enter_context(fighter.session())
        session.execute("SET idle_in_transaction_session_timeout = 0")
        session.execute("BEGIN")
        session.execute(f"GRANT CONNECT ON DATABASE data TO {fighter.user}")
        began = time.monotonic()
        dataset = world.dataset()
        with world.database.transaction() as tx:
            states = {slice_.state for slice_ in tx.query(Slice).filter(Slice.dataset_id == dataset.id)}
        assert (states, time.monotonic() - began < FEW_SECONDS) == ({"ready"}, True)


def test_reading_guest_is_not_ended(world: World, kept: None) -> None:
    guest = Fighter(world)
    with guest.session() as session, closing(watch_session(world.ender.vault, "data")) as watch:
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        session.execute(f"SELECT count(*) FROM {guest.view}")
        session.execute("SELECT pg_sleep(4)")
        assert guest.user not in end_login_blockers(watch)
        session.execute(f"SELECT count(*) FROM {guest.view}")


def test_guests_cannot_log_in_without_the_watch_if_configured(world: World, stack: Stack) -> None:
    guest = Fighter(world)
    WORKERS.persistent.close()
    watch_log_ins(stack)
    try:
        with pytest.raises(psycopg.OperationalError, match="does not watch"):
            guest.log_in()
        with world.admin() as admin, watch_session(world.ender.vault, "data") as idle:
            assert admin.execute("SELECT 1").fetchone() == idle.execute("SELECT 1").fetchone(), "others come and go"
            with pytest.raises(psycopg.OperationalError, match="does not watch"):
                guest.log_in()
        late = threading.Timer(1, lambda: WORKERS.end_login_blockers(world.ender.vault, "data"))
        late.start()
        with guest.session() as session:
            assert reads(session, guest.view), "it waited for the worker, which had just been started"
        late.join()
        assert end(world, [guest], WORKERS)[0] == [CONFIRMED]
    finally:
        with world.admin() as admin:
            admin.execute("DROP EVENT TRIGGER guestkey_refuse_unwatched")
