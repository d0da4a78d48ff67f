"""Ends guests' sessions that run or hold something longer than allowed, hold too many locks, or keep others out.

Each user is made with timeouts, and may switch off those that a user may set: so the worker looks, too. Where a door
could not be closed, as on a full disk, whoever comes in again is put out between the attempts to close it.

That people can log in is watched by each worker at each server, every second, from its start and over a session that
stays open: once a guest who makes every log-in wait is at it, a new session comes too late. A thread for each server,
so that none waits for another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from broker.base.errors import BackendDown, GuestkeyError
from broker.kinds.discovery import kinds
from broker.models import LIVE_STATES, Lease, Slice
from broker.runtime.parts import Parts
from broker.worker.slice_registration import REMOVED

log = structlog.get_logger(__name__)
LIMITS_SECONDS = 5.0
INTERVAL_SECONDS = 1.0
# After one was ended: the next of its sessions may be about to do the same.
INTERVAL_AFTER_ONE_SECONDS = 0.1
SERVERS_INTERVAL_SECONDS = 10.0
# Kind and connection.
ServerKey = tuple[str, str]


def enforce(parts: Parts) -> int:
    """What the worker does every few seconds; returns how many sessions were ended for their length."""
    # First, because it waits for least.
    end_sessions_of_failed_leases(parts)
    return end_overlong(parts)


def end_overlong(parts: Parts) -> int:
    """Look wherever a guest may be now. Returns how many sessions were ended; a silent place is passed over."""
    query = select(Slice.kind, Slice.binding).join(Lease, Lease.slice_id == Slice.id)
    with parts.database.transaction() as tx:
        rows = tx.execute(query.where(Lease.state.in_(LIVE_STATES)).distinct()).all()
    ended = 0
    for name, connection in _servers(rows):
        try:
            users = kinds[name].end_overlong(parts.vault, connection)
        except BackendDown as error:
            log.warning("guests.not_looked_at", connection=connection, backend=error.backend)
            continue
        for user in users:
            log.warning("guests.session_ended", connection=connection, user=user, why="too long, or too many locks")
        ended += len(users)
    return ended


def _servers(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[ServerKey]:
    """The servers that slices of these kinds and bindings are on."""
    found = {(kind, str(binding["connection"])) for kind, binding in rows if "connection" in binding}
    return sorted(server for server in found if server[0] in kinds)


def end_sessions_of_failed_leases(parts: Parts) -> int:
    """End what is open of leases whose end failed. Returns of how many; a silent place is passed over."""
    query = select(Lease.kind, Lease.handle, Slice.binding).join(Slice, Slice.id == Lease.slice_id)
    with parts.database.transaction() as tx:
        rows = tx.execute(query.where(Lease.state == "revoke_failed")).all()
    kept_out = 0
    for name, connection in _servers((kind, binding) for kind, _, binding in rows):
        some = [handle for kind, handle, binding in rows if (kind, binding.get("connection")) == (name, connection)]
        try:
            kept_out += kinds[name].end_sessions(parts.vault, connection, some)
        except BackendDown as error:
            log.warning("guests.not_kept_out", connection=connection, backend=error.backend)
    return kept_out


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
        return [server for server in _servers(rows) if kinds[server[0]].has_login_blockers]

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
