"""Sessions of the broker's own logins on datasets' databases, and how its things are named there."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import structlog

from broker.base.database import bounded
from broker.base.errors import BackendDown
from broker.base.resilience import Breaker
from broker.keystore.vault import Vault
from broker.kinds.names import short
from broker.kinds.tables.database_user import Login, login_url

log = structlog.get_logger(__name__)
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5
# Times and dates as they are always written: definitions that hold some are compared by their text.
_WRITTEN = " -c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres"
# Who would use a session that is there anyhow waits for another's use of it: short unless the server is silent.
_READY_SECONDS = 0.5
# A log-in that waits at the server goes on waiting there after we gave up, and counts towards what its login may have.
_MOST_HUNG = 10
_HUNG_PAUSE_SECONDS = 5.0
# A server that is frozen, or a network that swallows, must not hold the worker's hands for ever.
_Bounded = bounded(_STATEMENT_SECONDS + 1)


def view_of(slice_id: str) -> str:
    """The view a guest reads; its name says nothing of dataset or vendor, since every user can list names."""
    return f"slices.v_{short(slice_id)}"


def watch_session(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
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
        self.session: psycopg.Connection[tuple[Any, ...]] | None = None


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
    def session(self, vault: Vault, connection_name: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """The one at a dataset's database, opened if there is none; one that broke is forgotten.

        Raises:
            BackendDown: there is none, and none can be opened; or it has been busy for too long.
            psycopg.Error: the server refuses, or goes away meanwhile.
        """
        place = self._place(vault, connection_name)
        if not place.lock.acquire(timeout=_STATEMENT_SECONDS):
            raise silent()
        try:
            if place.session is None or not _answers(place.session):
                place.session = None
                place.session = watch_session(vault, connection_name)
                _hold(place.session)
            yield from _used(place, place.session)
        finally:
            place.lock.release()

    @contextmanager
    def ready(self, vault: Vault, connection_name: str) -> Iterator[psycopg.Connection[tuple[Any, ...]] | None]:
        """The same, but nothing is opened or waited for: None if there is none, or another has it.

        Raises:
            BackendDown: its login is not known.
            psycopg.Error: the server refuses, or goes away meanwhile.
        """
        place = self._place(vault, connection_name)
        if not place.lock.acquire(timeout=_READY_SECONDS):
            yield None
            return
        try:
            if place.session is None or not _answers(place.session):
                place.session = None
                yield None
            else:
                yield from _used(place, place.session)
        finally:
            place.lock.release()

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            places = list(self._places.values())
        for place in places:
            with place.lock:
                if place.session is not None:
                    place.session.close()
                place.session = None

    def _place(self, vault: Vault, connection_name: str) -> _Place:
        url = login_url(vault, connection_name, "watch")
        with self._lock:
            return self._places.setdefault(url, _Place())


def _used(place: _Place, session: psycopg.Connection[tuple[Any, ...]]) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
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


def _hold(session: psycopg.Connection[tuple[Any, ...]]) -> None:
    session.execute("SET idle_in_transaction_session_timeout = 0")
    session.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    # Never prepared: then only the indexes it uses would be locked, and not all that may be used later.
    session.execute(_HOLD, prepare=False)


def _answers(session: psycopg.Connection[tuple[Any, ...]]) -> bool:
    try:
        session.execute("")
    except psycopg.Error:
        session.close()
        return False
    return True


# Log-ins that hang, by login: after so many in a row one in a while is tried, until one is answered.
_log_ins: dict[str, Breaker] = defaultdict(lambda: Breaker(faults=_MOST_HUNG, pause=_HUNG_PAUSE_SECONDS))


def _connect(
    vault: Vault, connection: str, login: Login, *, written: str = _WRITTEN
) -> psycopg.Connection[tuple[Any, ...]]:
    url = login_url(vault, connection, login)
    if not _log_ins[url].admit():
        raise hanging()
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
        raise hanging() from error
    except psycopg.Error as error:
        log.warning("postgres.unreachable", connection=connection, login=login, error=type(error).__name__)
        raise silent() from error
    _log_ins[url].note(fault=False)
    return session


def registrar_session(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the registrar login, for the setup identity only."""
    return _connect(vault, connection_name, "registrar")


def registrar_session_as_server_writes(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the registrar login that writes times and dates as the server does for everybody."""
    return _connect(vault, connection_name, "registrar", written="")


def silent(detail: str = "The dataset's database does not answer.") -> BackendDown:
    """The database behind a slice does not answer usefully."""
    return BackendDown(detail, backend="postgresql", advice="Try again in a minute.")


def hanging() -> BackendDown:
    """The database behind a slice is reached, or its network is silent, and nobody is let in or refused."""
    return silent("The dataset's database does not answer: it leaves log-ins waiting.")


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
