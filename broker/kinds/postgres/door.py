"""Keeping PostgreSQL's door open: ending guests' sessions that make every log-in wait.

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

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault
from broker.kinds.postgres.sessions import Standing

log = structlog.get_logger(__name__)
Session = psycopg.Connection[tuple[Any, ...]]
# What a guest may write (its own password, its own settings) takes milliseconds.
WRITTEN = timedelta(seconds=2)
_POLL_SECONDS = 0.1
# A database connected before this function came has none; asking first keeps an error a second out of its log.
_THERE = "SELECT to_regprocedure('guestkey_ops.keep_door_open(interval)') IS NOT NULL"


def keep_door_open(session: Session) -> list[str]:
    """End guests' sessions that keep others from logging in; returns their users' names.

    Raises:
        psycopg.Error: the server refuses, or goes away meanwhile.
    """
    if session.execute(_THERE).fetchone() != (True,):
        return []
    found = session.execute("SELECT guestkey_ops.keep_door_open(%s)", (WRITTEN,)).fetchall()
    return [str(user) for (user,) in found]


@contextmanager
def door_kept_open(standing: Standing, vault: Vault, connection_name: str) -> Iterator[None]:
    """Meanwhile keep looking, over the session that is there; where none is, nothing is done."""
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                with standing.ready(vault, connection_name) as session:
                    if session is not None:
                        keep_door_open(session)
                done.wait(_POLL_SECONDS)
        except (BackendDown, psycopg.Error) as error:
            log.warning("postgres.door_not_kept_open", connection=connection_name, error=type(error).__name__)

    looking = threading.Thread(target=look, name="keeping-door-open")
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()
