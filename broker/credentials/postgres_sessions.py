"""Sessions of the broker's own logins on datasets' databases, and how its things are named there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import structlog

from broker.credentials.database_user import unknown_login
from broker.credentials.names import short
from broker.database import bounded
from broker.errors import BackendDown
from broker.vault import Vault, VaultRefused

log = structlog.get_logger(__name__)
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5
# Times and dates as they are always written: definitions that hold some are compared by their text.
_WRITTEN = " -c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres"
# A server that is frozen, or a network that swallows, must not hold the worker's hands for ever.
_Bounded = bounded(_STATEMENT_SECONDS + 1)


def view_of(slice_id: str) -> str:
    """The view a guest reads; its name says nothing of dataset or vendor, since every user can list names."""
    return f"slices.v_{short(slice_id)}"


def watching(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the watch login on a dataset's database, autocommitting.

    Raises:
        BackendDown: the database cannot be reached, or its login is not known.
    """
    return _connect(vault, f"connections/{connection_name}/watch", remembered=True)


# What ending a session reads, shared among a server's databases: locks on these come from the table that can be full.
_HOLD = "SELECT FROM pg_stat_activity, pg_locks, pg_roles, pg_auth_members LIMIT 0"


class Standing:
    """Sessions of the watch login that stay open, one for each server.

    A server whose table of locks is full lets nobody log in, and who is logged in gets no lock either. So each stays in
    a transaction that has the locks it needs to end whoever filled the table; idle, it holds no snapshot.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, psycopg.Connection[tuple[Any, ...]]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def session(self, vault: Vault, connection_name: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """The one at a dataset's database, opened if there is none; one that broke is forgotten.

        Raises:
            BackendDown: there is none, and none can be opened.
            psycopg.Error: the server refuses, or goes away meanwhile.
        """
        url = _url(vault, f"connections/{connection_name}/watch", remembered=True)
        # One at a time: a session does one thing at once.
        with self._lock:
            standing = self._sessions.pop(url, None)
            if standing is None or not _answers(standing):
                standing = watching(vault, connection_name)
                _hold(standing)
            try:
                yield standing
                # A new transaction, so that nobody who needs the catalogues for itself waits for long.
                standing.execute("COMMIT")
                _hold(standing)
            except BaseException:
                standing.close()
                raise
            self._sessions[url] = standing

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            while self._sessions:
                self._sessions.popitem()[1].close()


def _hold(session: psycopg.Connection[tuple[Any, ...]]) -> None:
    session.execute("SET idle_in_transaction_session_timeout = 0")
    session.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    session.execute(_HOLD)


def _answers(session: psycopg.Connection[tuple[Any, ...]]) -> bool:
    try:
        session.execute("")
    except psycopg.Error:
        session.close()
        return False
    return True


def _url(vault: Vault, secret: str, *, remembered: bool) -> str:
    try:
        return str(vault.secret(secret, remembered=remembered)["url"])
    except (VaultRefused, KeyError) as error:
        raise unknown_login() from error


def _connect(
    vault: Vault, secret: str, *, remembered: bool, written: str = _WRITTEN
) -> psycopg.Connection[tuple[Any, ...]]:
    url = _url(vault, secret, remembered=remembered)
    try:
        return _Bounded.connect(
            url,
            connect_timeout=_CONNECT_SECONDS,
            autocommit=True,
            application_name="guestkey",
            options=f"-c statement_timeout={_STATEMENT_SECONDS * 1000} -c lock_timeout=3000{written}",
            tcp_user_timeout=_CONNECT_SECONDS * 1000,
        )
    except psycopg.Error as error:
        log.warning("postgres.unreachable", secret=secret, error=type(error).__name__)
        raise silent() from error


def registering(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the registrar login, for the setup identity only."""
    return _connect(vault, f"connections/{connection_name}/registrar", remembered=False)


def registering_as_the_server_is(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the registrar login that writes times and dates as the server does for everybody."""
    return _connect(vault, f"connections/{connection_name}/registrar", remembered=False, written="")


def silent() -> BackendDown:
    """The database behind a slice does not answer usefully."""
    return BackendDown("The dataset's database does not answer.", backend="postgresql", advice="Try again in a minute.")
