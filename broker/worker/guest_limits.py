"""Ends guests' sessions that run or hold something longer than allowed, or hold too many locks.

Each user is made with timeouts, and may switch off those that a user may set: so the worker looks, too. Where a door
could not be closed, as on a full disk, whoever comes in again is put out between the attempts to close it.
"""

from __future__ import annotations

from collections import defaultdict

import structlog
from sqlalchemy import select

from broker.base.errors import BackendDown
from broker.kinds.discovery import kinds
from broker.models import LIVE_STATES, Lease, Slice
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
LIMITS_SECONDS = 5.0


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
    places = {(kind, str(binding["connection"])) for kind, binding in rows if "connection" in binding}
    ended = 0
    for name, connection in sorted(places):
        if name not in kinds:
            continue
        try:
            users = kinds[name].end_overlong(parts.vault, connection)
        except BackendDown as error:
            log.warning("guests.not_looked_at", connection=connection, backend=error.backend)
            continue
        for user in users:
            log.warning("guests.session_ended", connection=connection, user=user, why="too long, or too many locks")
        ended += len(users)
    return ended


def end_sessions_of_failed_leases(parts: Parts) -> int:
    """End what is open of leases whose end failed. Returns of how many; a silent place is passed over."""
    query = select(Lease.kind, Lease.handle, Slice.binding).join(Slice, Slice.id == Lease.slice_id)
    with parts.database.transaction() as tx:
        rows = tx.execute(query.where(Lease.state == "revoke_failed")).all()
    handles: dict[tuple[str, str], list[str]] = defaultdict(list)
    for kind, handle, binding in rows:
        if "connection" in binding:
            handles[kind, str(binding["connection"])].append(handle)
    kept_out = 0
    for (name, connection), some in sorted(handles.items()):
        if name not in kinds:
            continue
        try:
            kept_out += kinds[name].end_sessions(parts.vault, connection, some)
        except BackendDown as error:
            log.warning("guests.not_kept_out", connection=connection, backend=error.backend)
    return kept_out
