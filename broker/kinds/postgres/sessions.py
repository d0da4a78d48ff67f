"""Sessions of the broker's own logins on datasets' databases, how its things are named there, and what guards log-ins.

Guests' sessions that take more than they may, or make every log-in wait, are ended: docs/guests-who-fight.md says why.
`DROP DATABASE` asks for the database itself before it looks who asks; behind whoever waits for that waits every log-in,
Guestkey's own included. So this is done over sessions that are logged in already, and needs no lock a guest can hold.
What the server says against what is done in a session is a `psycopg.Error`; `answering` makes it one of ours.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import structlog

from broker.base.database import bounded
from broker.base.errors import BackendDown
from broker.base.resilience import Breaker
from broker.keystore.vault import Vault
from broker.kinds.names import short
from broker.kinds.tables import database_user
from broker.kinds.tables.database_user import Login, login_url

log = structlog.get_logger(__name__)
silent = partial(database_user.silent, "postgresql")
answering = partial(database_user.answering, "postgresql", psycopg.Error)
Session = psycopg.Connection[tuple[Any, ...]]
# The user's own timeout is 60 s: who reaches this has switched it off.
STATEMENT = timedelta(seconds=90)
TRANSACTION = timedelta(minutes=15)
# A query of hundreds of partitions takes some thousand; a server's table of locks has room for 12,800 by default.
LOCKS = 4000
# What a guest may write (its own password, its own settings) takes milliseconds.
WRITTEN = timedelta(seconds=2)
_POLL_SECONDS = 0.1
# A database connected before this function came has none; asking first keeps an error a second out of its log.
_THERE = "SELECT to_regprocedure('guestkey_ops.keep_door_open(interval)') IS NOT NULL"
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5
# Times and dates as they are always written: definitions that hold some are compared by their text.
_WRITTEN = " -c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres"
# Who would use a session that is there anyhow waits for another's use of it: short unless the server is silent.
_READY_SECONDS = 0.5
# A log-in that waits at the server goes on waiting there after we gave up, and counts towards what its login may have.
_MOST_HUNG = 10
_HUNG_PAUSE_SECONDS = 5.0
_HANGING = "The dataset's database does not answer: it leaves log-ins waiting."
# A server that is frozen, or a network that swallows, must not hold the worker's hands for ever.
_Bounded = bounded(_STATEMENT_SECONDS + 1)


def view_of(slice_id: str) -> str:
    """The view a guest reads; its name says nothing of dataset or vendor, since every user can list names."""
    return f"slices.v_{short(slice_id)}"


def watch_session(vault: Vault, connection_name: str) -> Session:
    """A session of the watch login on a dataset's database, autocommitting.

    Raises:
        BackendDown: the database cannot be reached, or its login is not known.
    """
    return _connect(vault, connection_name, "watch")


# What ending a session reads, shared among a server's databases: locks on these come from the table that can be full.
_HOLD = "SELECT FROM pg_stat_activity, pg_locks, pg_roles, pg_auth_members LIMIT 0"


class _Place:
    """A server's one, and who has it at the moment: a session does one thing at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session: Session | None = None


class PersistentSessions:
    """Sessions of the watch login that stay open, one for each server.

    A server whose table of locks is full lets nobody log in, and who is logged in gets no lock either. So each stays in
    a transaction that has the locks it needs to end whoever filled the table; idle, it holds no snapshot. The same
    session ends whoever makes every log-in wait. Servers do not wait for one another.
    """

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()

    @contextmanager
    def session(self, vault: Vault, connection_name: str) -> Iterator[Session]:
        """The one at a dataset's database, opened if there is none; one that broke is forgotten.

        Raises:
            BackendDown: there is none, and none can be opened; or it has been busy for too long.
        """
        with self._taken(vault, connection_name, _STATEMENT_SECONDS) as place:
            if place is None:
                raise silent()
            if place.session is None:
                place.session = watch_session(vault, connection_name)
                _hold(place.session)
            yield from _used(place, place.session)

    @contextmanager
    def ready(self, vault: Vault, connection_name: str) -> Iterator[Session | None]:
        """The same, but nothing is opened or waited for: None if there is none, or another has it.

        Raises:
            BackendDown: its login is not known.
        """
        with self._taken(vault, connection_name, _READY_SECONDS) as place:
            if place is None or place.session is None:
                yield None
            else:
                yield from _used(place, place.session)

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            places = list(self._places.values())
        for place in places:
            with place.lock:
                if place.session is not None:
                    place.session.close()
                place.session = None

    @contextmanager
    def _taken(self, vault: Vault, connection_name: str, seconds: float) -> Iterator[_Place | None]:
        """A server's place, without a session that broke; None if another has it for so long."""
        url = login_url(vault, connection_name, "watch")
        with self._lock:
            place = self._places.setdefault(url, _Place())
        if not place.lock.acquire(timeout=seconds):
            yield None
            return
        try:
            if place.session is not None and not _answers(place.session):
                place.session = None
            yield place
        finally:
            place.lock.release()


def _used(place: _Place, session: Session) -> Iterator[Session]:
    try:
        # PostgreSQL hears of new roles where it takes a lock that it does not hold yet: this one needs no shared table.
        session.execute("SELECT FROM pg_namespace LIMIT 0", prepare=False)
        yield session
        # A new transaction, so that nobody who needs the catalogues for itself waits for long.
        session.execute("COMMIT")
        _hold(session)
    except BaseException:
        session.close()
        place.session = None
        raise


def _hold(session: Session) -> None:
    session.execute("SET idle_in_transaction_session_timeout = 0")
    session.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    # Never prepared: then only the indexes it uses would be locked, and not all that may be used later.
    session.execute(_HOLD, prepare=False)


def _answers(session: Session) -> bool:
    try:
        session.execute("")
    except psycopg.Error:
        session.close()
        return False
    return True


# Log-ins that hang, by login: after so many in a row one in a while is tried, until one is answered.
_log_ins: dict[str, Breaker] = defaultdict(lambda: Breaker(faults=_MOST_HUNG, pause=_HUNG_PAUSE_SECONDS))


def _connect(vault: Vault, connection: str, login: Login, *, written: str = _WRITTEN) -> Session:
    url = login_url(vault, connection, login)
    if not _log_ins[url].admit():
        raise silent(_HANGING)
    try:
        session = _Bounded.connect(
            url,
            connect_timeout=_CONNECT_SECONDS,
            autocommit=True,
            application_name="guestkey",
            options=f"-c statement_timeout={_STATEMENT_SECONDS * 1000} -c lock_timeout=3000{written}",
            tcp_user_timeout=_CONNECT_SECONDS * 1000,
        )
    except psycopg.errors.ConnectionTimeout as error:
        _log_ins[url].note(fault=True)
        log.warning("postgres.log_in_hangs", connection=connection, login=login)
        raise silent(_HANGING) from error
    except psycopg.Error as error:
        log.warning("postgres.unreachable", connection=connection, login=login, error=type(error).__name__)
        raise silent() from error
    _log_ins[url].note(fault=False)
    return session


def registrar_session(vault: Vault, connection_name: str, *, as_server_writes: bool = False) -> Session:
    """A session of the registrar login, for the setup identity only.

    Args:
        as_server_writes: it writes times and dates as the server does for everybody.
    """
    return _connect(vault, connection_name, "registrar", written="" if as_server_writes else _WRITTEN)


@contextmanager
def beside(what: str, work: Callable[[threading.Event], None], *, threads: int = 1) -> Iterator[None]:
    """Run `work` in threads of its own meanwhile; it is told when the block is over, and waited for.

    A server that refuses or does not answer ends it: what it did not do is seen when PostgreSQL is asked.
    """
    over = threading.Event()

    def run() -> None:
        try:
            work(over)
        except (BackendDown, psycopg.Error) as error:
            log.warning("postgres.gave_up_beside", what=what, error=type(error).__name__)

    running = [threading.Thread(target=run, name=what) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in running:
            thread.join()


def end_overlong(
    session: Session, *, statement: timedelta = STATEMENT, transaction: timedelta = TRANSACTION, locks: int = LOCKS
) -> list[str]:
    """End guests' sessions that go beyond; returns their users' names."""
    query = "SELECT guestkey_ops.end_overlong(%s, %s, %s)"
    try:
        return [str(user) for (user,) in session.execute(query, (statement, transaction, locks)).fetchall()]
    except psycopg.errors.UndefinedFunction:
        return []


def end_login_blockers(session: Session) -> list[str]:
    """End guests' sessions that keep others from logging in; returns their users' names."""
    if session.execute(_THERE).fetchone() != (True,):
        return []
    found = session.execute("SELECT guestkey_ops.keep_door_open(%s)", (WRITTEN,)).fetchall()
    return [str(user) for (user,) in found]


@contextmanager
def login_blockers_ended(sessions: PersistentSessions, vault: Vault, connection_name: str) -> Iterator[None]:
    """Meanwhile keep looking, over the session that is there; where none is, nothing is done."""

    def look(over: threading.Event) -> None:
        while not over.is_set():
            with sessions.ready(vault, connection_name) as session:
                if session is not None:
                    end_login_blockers(session)
            over.wait(_POLL_SECONDS)

    with beside("ending-login-blockers", look):
        yield
