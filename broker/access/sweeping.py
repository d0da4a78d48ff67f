"""What the worker does about leases: mark what is over, end what is marked, find what nobody recorded.

Any number of workers may run: work is claimed with a deadline column, so no lock is held across a call to a backend
and a worker that dies gives its claims back by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import bindparam, select, text, update

from broker import audit, metrics
from broker.access import ending
from broker.credentials import kinds
from broker.credentials.base import Bound, Exposed, LeaseToEnd, NotEnded, Seen, Shown
from broker.database import Transaction
from broker.database import now as clock
from broker.errors import BackendDown, GuestkeyError
from broker.models import Lease, Slice
from broker.parts import Parts
from broker.vault import VaultRefused

log = structlog.get_logger(__name__)
CLAIM_SECONDS = 30
BATCH = 64
HANDS = 8
_SLOWEST_RETRY = 60

_CLAIM = text(
    """
    UPDATE guestkey.lease SET claimed_until = clock_timestamp() + make_interval(secs => :seconds)
     WHERE id IN (
       SELECT id FROM guestkey.lease
        WHERE state IN ('revoking', 'revoke_failed') AND next_attempt_at <= clock_timestamp()
          AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
        ORDER BY next_attempt_at LIMIT :batch FOR UPDATE SKIP LOCKED)
    RETURNING id
    """
)


@dataclass(frozen=True, slots=True)
class Stray:
    """A credential that no living lease accounts for, and what became of it: confirmed by whom, or the error."""

    lease: str
    kind: str
    confirmed_by: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a round of asking the backends found, and what each kind's backends answered."""

    strays: list[Stray]
    shown: Mapping[str, Shown]

    @property
    def ended(self) -> int:
        """How many strays are gone."""
        return sum(not stray.error for stray in self.strays)


def mark_over(parts: Parts) -> int:
    """Mark active leases whose life is over and pending ones whose call's deadline has passed. Returns how many."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        expired = ending.mark(
            tx, (Lease.state == "active") & (Lease.expires_at <= now), cause="expired", by=audit.SYSTEM, now=now
        )
        abandoned = ending.mark(
            tx, (Lease.state == "pending") & (Lease.deadline <= now), cause="abandoned", by=audit.SYSTEM, now=now
        )
        return len(expired) + len(abandoned)


def end_marked(parts: Parts, pool: ThreadPoolExecutor) -> int:
    """Claim a batch of marked leases and end each at its backend. Returns how many were confirmed as ended."""
    with parts.database.transaction() as tx:
        claimed = list(tx.scalars(_CLAIM, {"seconds": CLAIM_SECONDS, "batch": BATCH}))
    return sum(pool.map(lambda lease_id: _end_one(parts, lease_id), claimed))


def _end_one(parts: Parts, lease_id: str) -> bool:
    """End one claimed lease; whatever happens is recorded or left for the next claim, never raised."""
    try:
        with parts.database.transaction() as tx:
            lease = tx.get_one(Lease, lease_id)
            binding = tx.get_one(Slice, lease.slice_id).binding
        try:
            confirmed_by = kinds[lease.kind].end(parts.vault, to_end(parts, lease, binding))
        except Exposed as error:
            _note_exposed(parts, lease, error)
            return False
        except (NotEnded, BackendDown, VaultRefused) as error:
            _note_failure(parts, lease, error)
            return False
        return _note_ended(parts, lease, confirmed_by)
    except GuestkeyError as error:
        # Our own records are out of reach: the claim runs out and another attempt follows.
        log.warning("lease.ending_unrecorded", lease=lease_id, error=error.code)
        return False


def to_end(parts: Parts, lease: Lease, binding: Mapping[str, Any]) -> LeaseToEnd:
    """What a kind needs to know to end a lease."""
    return LeaseToEnd(
        lease.id,
        lease.handle,
        binding,
        lease.backend_lease_id,
        place=parts.settings.place(lease.kind, binding),
        action=lease.action,
        expires_at=lease.expires_at,
    )


def _note_ended(parts: Parts, lease: Lease, confirmed_by: str) -> bool:
    with parts.database.transaction() as tx:
        now = clock(tx)
        if lease.activated_at is None and lease.deadline > now:
            # The call that makes the credential may still be in flight: ask again once it cannot be.
            tx.execute(
                update(Lease).where(Lease.id == lease.id).values(next_attempt_at=lease.deadline, claimed_until=None)
            )
            return False
        state = "expired" if lease.end_cause == "expired" else "revoked"
        changed = tx.execute(
            update(Lease)
            .where(Lease.id == lease.id, Lease.state.in_(("revoking", "revoke_failed")))
            .values(state=state, ended_at=now, confirmed_by=confirmed_by, claimed_until=None, last_error="")
            .returning(Lease.id)
        ).one_or_none()
        if changed is None:
            return False
        audit.record(
            tx,
            f"lease.{state}",
            actor=audit.SYSTEM,
            subject=lease.id,
            now=now,
            details={"cause": lease.end_cause, "confirmed_by": confirmed_by, "attempts": lease.attempts + 1},
        )
    metrics.leases_ended.labels(state, lease.kind).inc()
    if lease.ending_since is not None:
        metrics.end_seconds.labels(lease.kind).observe((now - lease.ending_since).total_seconds())
    return True


def _note_exposed(parts: Parts, lease: Lease, error: Exposed) -> None:
    """The backend cannot end it sooner: said once, shown until then, and asked again at that moment."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        again = max(error.until, now + timedelta(seconds=1))
        tx.execute(
            update(Lease)
            .where(Lease.id == lease.id, Lease.state.in_(("revoking", "revoke_failed")))
            .values(
                state="revoking",
                exposed_until=again,
                next_attempt_at=again,
                claimed_until=None,
                last_error=str(error)[:500],
            )
        )
        if lease.exposed_until is None:
            details = {"kind": lease.kind, "until": again.isoformat()}
            audit.record(tx, "lease.exposed", actor=audit.SYSTEM, subject=lease.id, now=now, details=details)
    log.warning("lease.exposed", lease=lease.id, until=again.isoformat())


def _note_failure(parts: Parts, lease: Lease, error: Exception) -> None:
    wait = min(_SLOWEST_RETRY, 2 ** min(lease.attempts, 6))
    with parts.database.transaction() as tx:
        now = clock(tx)
        tx.execute(
            update(Lease)
            .where(Lease.id == lease.id, Lease.state.in_(("revoking", "revoke_failed")))
            .values(
                state="revoke_failed",
                attempts=Lease.attempts + 1,
                next_attempt_at=now + timedelta(seconds=wait),
                claimed_until=None,
                last_error=str(error)[:500],
            )
        )
        if lease.state != "revoke_failed":
            audit.record(
                tx,
                "lease.revoke_failed",
                actor=audit.SYSTEM,
                subject=lease.id,
                now=now,
                details={"kind": lease.kind, "error": type(error).__name__, "next_attempt_in": wait},
            )
    metrics.leases_ended.labels("revoke_failed", lease.kind).inc()
    log.error("lease.revoke_failed", lease=lease.id, attempts=lease.attempts + 1, error=str(error)[:300])


def reconcile(parts: Parts) -> Reconciled:
    """Ask every backend for handles with our tag and end those no living lease accounts for.

    The backends are listed first and our rows read afterwards, so a lease made in between is never mistaken.
    """
    with parts.database.transaction() as tx:
        rows = tx.execute(select(Slice.kind, Slice.binding).where(Slice.state != "registering")).all()
    strays: list[Stray] = []
    answers: dict[str, Shown] = {}
    for name, kind in kinds.items():
        bounds = [Bound(binding, parts.settings.place(name, binding)) for of, binding in rows if of == name]
        answers[name] = kind.shown(parts.vault, parts.tag, bounds)
        handles = answers[name].handles
        unaccounted = sorted(handles.keys() - _accounted_for(parts, set(handles)))
        strays += [_end_stray(parts, name, handle, handles[handle]) for handle in unaccounted]
    return Reconciled(strays, answers)


def _accounted_for(parts: Parts, handles: set[str]) -> set[str]:
    if not handles:
        return set()
    with parts.database.transaction() as tx:
        living = Lease.state.in_(("pending", "active", "revoking", "revoke_failed"))
        query = select(Lease.handle).where(Lease.handle.in_(bindparam("handles", expanding=True)), living)
        return set(tx.scalars(query, {"handles": sorted(handles)}))


def end_seen(parts: Parts, tag: str, kind: str, handle: str, seen: Seen) -> Stray:
    """End what a backend shows, where it was seen; nothing of it is on record afterwards."""
    lease_id = handle.removeprefix(f"{tag}-")
    try:
        bound = seen.bound
        ending_ = LeaseToEnd(lease_id, handle, bound.binding, seen.backend_lease_id, place=bound.place)
        return Stray(lease_id, kind, kinds[kind].end(parts.vault, ending_))
    except (NotEnded, Exposed, BackendDown, VaultRefused) as error:
        log.error("stray.not_ended", handle=handle, error=str(error)[:200])
        return Stray(lease_id, kind, error=str(error)[:500])


def _end_stray(parts: Parts, kind: str, handle: str, seen: Seen) -> Stray:
    """End what should not exist, and say so in the log of events."""
    stray = end_seen(parts, parts.tag, kind, handle, seen)
    if stray.error:
        return stray
    with parts.database.transaction() as tx:
        audit.record(
            tx, "lease.stray_ended", actor=audit.SYSTEM, subject=stray.lease, now=clock(tx), details={"kind": kind}
        )
    metrics.strays.labels(kind).inc()
    log.error("stray.ended", handle=handle, kind=kind)
    return stray


def due_in(tx: Transaction, now: datetime, *, most: float) -> float:
    """Seconds until the next lease is over or the next attempt is due, at most `most`."""
    row = tx.execute(
        text(
            "SELECT least((SELECT min(expires_at) FROM guestkey.lease WHERE state = 'active'),"
            " (SELECT min(deadline) FROM guestkey.lease WHERE state = 'pending'),"
            " (SELECT min(next_attempt_at) FROM guestkey.lease WHERE state IN ('revoking', 'revoke_failed')))"
        )
    ).scalar_one()
    return most if row is None else max(0.02, min(most, (row - now).total_seconds()))
