"""Watches that people can log in at the datasets' servers: ends guests' sessions that make every log-in wait.

Each worker looks at each server by itself, every second, from its start and over a session that stays open: once such a
guest is at it, a new session comes too late. A thread for each server, so that none waits for another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from broker.base.errors import BackendDown, GuestkeyError
from broker.kinds.discovery import kinds
from broker.models import Slice
from broker.runtime.parts import Parts
from broker.worker.slice_registration import REMOVED

log = structlog.get_logger(__name__)
INTERVAL_SECONDS = 1.0
# After one was ended: the next of its sessions may be about to do the same.
INTERVAL_AFTER_ONE_SECONDS = 0.1
SERVERS_INTERVAL_SECONDS = 10.0
# Kind and connection.
ServerKey = tuple[str, str]


class LoginWatch:
    """What one worker does for all servers that slices are on. `run` returns once told to stop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._watched: dict[ServerKey, threading.Thread] = {}

    def run(self, stopping: threading.Event) -> None:
        """Watch every server there is, and those that come."""
        while not stopping.is_set():
            for place in self._places():
                if place not in self._watched:
                    # A daemon: a server that is silent must not keep the worker from leaving.
                    watching = threading.Thread(
                        target=self._watch, args=(place, stopping), name=f"door-{place[1]}", daemon=True
                    )
                    self._watched[place] = watching
                    watching.start()
            stopping.wait(SERVERS_INTERVAL_SECONDS if self._watched else INTERVAL_SECONDS)
        for watching in self._watched.values():
            watching.join(INTERVAL_SECONDS)

    def _places(self) -> list[ServerKey]:
        query = select(Slice.kind, Slice.binding).where(Slice.state_detail != REMOVED).distinct()
        try:
            with self._parts.database.transaction() as tx:
                rows = tx.execute(query).all()
        except (GuestkeyError, SQLAlchemyError) as error:
            log.warning("doors.not_listed", error=type(error).__name__)
            return []
        found = {(kind, str(binding["connection"])) for kind, binding in rows if "connection" in binding}
        return sorted(place for place in found if place[0] in kinds and kinds[place[0]].has_login_blockers)

    def _watch(self, place: ServerKey, stopping: threading.Event) -> None:
        look = watcher_of(self._parts, place)
        while not stopping.is_set():
            stopping.wait(INTERVAL_AFTER_ONE_SECONDS if look() else INTERVAL_SECONDS)


def watcher_of(parts: Parts, place: ServerKey) -> Callable[[], int]:
    """Something that looks at one server once and says how many sessions it ended; silence is logged when it begins."""
    name, connection = place
    kind = kinds[name]
    silent = False

    def look() -> int:
        nonlocal silent
        try:
            users = kind.end_login_blockers(parts.vault, connection)
        except BackendDown as error:
            if not silent:
                log.warning("doors.not_looked_at", connection=connection, detail=error.detail)
            silent = True
            return 0
        except Exception as error:  # a thread that dies of one fault would leave the door to whoever comes next
            log.exception("doors.unexpected", connection=connection, error=type(error).__name__)
            return 0
        silent = False
        for user in users:
            log.warning("guests.session_ended", connection=connection, user=user, why="kept others from logging in")
        return len(users)

    return look
