"""Ending guests' sessions that take more than they may, or make every log-in wait. docs/guests-who-fight.md says why.

`DROP DATABASE` asks for the database itself before it looks who asks; behind whoever waits for that waits every log-in,
Guestkey's own included. So this is done over sessions that are logged in already, and needs no lock a guest can hold.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import structlog

from broker.keystore.vault import Vault
from broker.kinds.postgres.sessions import PersistentSessions, beside

Session = psycopg.Connection[tuple[Any, ...]]
# The user's own timeout is 60 s: who reaches this has switched it off.
STATEMENT = timedelta(seconds=90)
TRANSACTION = timedelta(minutes=15)
# A query of hundreds of partitions takes some thousand; a server's table of locks has room for 12,800 by default.
LOCKS = 4000

log = structlog.get_logger(__name__)
# What a guest may write (its own password, its own settings) takes milliseconds.
WRITTEN = timedelta(seconds=2)
_POLL_SECONDS = 0.1
# A database connected before this function came has none; asking first keeps an error a second out of its log.
_THERE = "SELECT to_regprocedure('guestkey_ops.keep_door_open(interval)') IS NOT NULL"


def end_overlong(
    session: Session, *, statement: timedelta = STATEMENT, transaction: timedelta = TRANSACTION, locks: int = LOCKS
) -> list[str]:
    """End guests' sessions that go beyond; returns their users' names.

    Raises:
        psycopg.Error: the server refuses, or goes away meanwhile.
    """
    query = "SELECT guestkey_ops.end_overlong(%s, %s, %s)"
    try:
        return [str(user) for (user,) in session.execute(query, (statement, transaction, locks)).fetchall()]
    except psycopg.errors.UndefinedFunction:
        return []


def end_login_blockers(session: Session) -> list[str]:
    """End guests' sessions that keep others from logging in; returns their users' names.

    Raises:
        psycopg.Error: the server refuses, or goes away meanwhile.
    """
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
