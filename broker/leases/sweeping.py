"""What the worker does about leases: mark what is over, end what is marked.

Any number of workers may run: work is claimed with a deadline column, so no lock is held across a call to a backend
and a worker that dies gives its claims back by itself. A backend's confirmation is all that makes a lease `revoked` or
`expired`. What nobody recorded is found by `broker.leases.reconciling`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from queue import Empty
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import select, text, update

from broker.base import metrics
from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown, GuestkeyError
from broker.keystore.vault import VaultRefused
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.kinds.values import BoundSlice, Exposed, LeaseToEnd, NotEnded
from broker.log import audit
from broker.models import Lease, Slice
from broker.revocation import ending
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
CLAIM_SECONDS = 30
BATCH = 256
HANDS = 8
# What was marked meanwhile is claimed after this, though a place hangs; a full batch is let finish before the next.
_PATIENCE_SECONDS = 1.0
_PATIENCE_OF_MANY_SECONDS = 5.0

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
SLOWEST_RETRY = 60
_ENDING = ("revoking", "revoke_failed")


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A lease this worker has taken on, as recorded and as its kind is told of it."""

    lease: Lease
    to_end: LeaseToEnd


def mark_expired(parts: Parts) -> int:
    """Mark active leases whose life is over and pending ones whose call's deadline has passed. Returns how many."""
    with parts.database.transaction_now() as (tx, now):
        over = {"expired": (Lease.state == "active") & (Lease.expires_at <= now)}
        over["abandoned"] = (Lease.state == "pending") & (Lease.deadline <= now)
        return sum(len(ending.mark(tx, which, cause=cause, by=audit.SYSTEM, now=now)) for cause, which in over.items())


def end_marked(parts: Parts, pool: ThreadPoolExecutor) -> int:
    """Claim a batch of marked leases and end them at their backends. Returns how many were claimed."""
    with parts.database.transaction() as tx:
        ids = list(tx.scalars(_CLAIM, {"seconds": CLAIM_SECONDS, "batch": BATCH}))
        query = select(Lease, Slice.binding).join(Slice, Slice.id == Lease.slice_id).where(Lease.id.in_(ids))
        rows = tx.execute(query).all() if ids else []
        now = clock(tx)
    claimed = [_Claimed(lease, to_end(parts, lease, binding, now)) for lease, binding in rows]
    until = monotonic() + CLAIM_SECONDS
    jobs = [pool.submit(_end, parts, job, until) for job in _jobs(claimed)]
    # A place that hangs holds one hand until it is given up, and nobody else's credentials.
    wait(jobs, timeout=_PATIENCE_SECONDS if len(ids) < BATCH else _PATIENCE_OF_MANY_SECONDS)
    if len(ids) < BATCH and not parts.unsettled.empty():
        # Only now: guests' ends come before the key store's tidiness.
        parts.background.submit(_settle, parts)
    return len(ids)


def _jobs(claimed: Sequence[_Claimed]) -> list[list[_Claimed]]:
    """What one hand does at a time: all leases of one kind at one place, which end sooner together."""
    together: dict[tuple[str, str], list[_Claimed]] = {}
    for one in claimed:
        together.setdefault((one.lease.kind, BoundSlice(one.to_end.binding).connection), []).append(one)
    return list(together.values())


def by_hand(parts: Parts, tx: Transaction, leases: Sequence[Lease], now: datetime) -> dict[str, str]:
    """What an operator would type, by lease id, for each that its backend does not let go of."""
    failing = [lease for lease in leases if lease.state == "revoke_failed"]
    if not failing:
        return {}
    wanted = select(Slice.id, Slice.binding).where(Slice.id.in_({lease.slice_id for lease in failing}))
    bindings: dict[str, dict[str, Any]] = dict(tx.execute(wanted).all())
    return {
        lease.id: kinds[lease.kind].by_hand(to_end(parts, lease, bindings[lease.slice_id], now)) for lease in failing
    }


def to_end(parts: Parts, lease: Lease, binding: Mapping[str, Any], now: datetime) -> LeaseToEnd:
    """What a kind needs to know to end a lease."""
    return LeaseToEnd(
        lease.id,
        lease.handle,
        binding,
        lease.backend_lease_id,
        place=parts.settings.place(lease.kind, binding),
        action=lease.action,
        expires_at=lease.expires_at,
        now=now,
    )


def _end(parts: Parts, claimed: Sequence[_Claimed], until: float) -> None:
    """End claimed leases of one kind; whatever happens is recorded or left for the next claim, never raised.

    Args:
        until: when the claim ends, on this process' own clock; afterwards they are another worker's.
    """
    if monotonic() >= until:
        return
    about = {"leases": len(claimed), "first": claimed[0].lease.id}
    try:
        over = record_outcomes(parts, [one.lease for one in claimed], _attempt(parts, claimed))
    except GuestkeyError as error:
        # Our own records are out of reach: the claims run out and another attempt follows.
        log.warning("lease.ending_unrecorded", error=error.code, **about)
        return
    except Exception as error:  # nobody may be waiting for this hand any more
        log.exception("lease.ending_unexpected", error=type(error).__name__, **about)
        return
    kind = kinds[claimed[0].lease.kind]
    if kind.keeps_leases:
        for one in claimed:
            if one.lease.id in over:
                parts.unsettled.put((kind, one.to_end))


def _attempt(parts: Parts, claimed: Sequence[_Claimed]) -> Mapping[str, str | Exception]:
    """By lease id what confirmed the end, or why there is none."""
    kind = kinds[claimed[0].lease.kind]
    try:
        return kind.end_many(parts.vault, [one.to_end for one in claimed])
    except Exception as error:  # one that cannot be worked at must not keep the others alive
        log.exception("lease.not_ended_together", leases=len(claimed), error=type(error).__name__)
    return {one.lease.id: _attempt_alone(parts, kind, one) for one in claimed}


def _attempt_alone(parts: Parts, kind: Kind, claimed: _Claimed) -> str | Exception:
    try:
        return kind.end(parts.vault, claimed.to_end)
    except (NotEnded, Exposed, BackendDown, VaultRefused) as error:
        return error
    except Exception as error:  # what is not recorded as failed would be alive, and alarm nobody
        log.exception("lease.ending_unforeseen", lease=claimed.lease.id, error=type(error).__name__)
        return NotEnded(f"The worker failed with {type(error).__name__}; see its log.")


def _settle(parts: Parts) -> None:
    """Let the key store forget what has ended; should this process die meanwhile, reconciling does it."""
    with suppress(Empty):
        while True:
            kind, ended = parts.unsettled.get_nowait()
            kind.settle(parts.vault, ended)


def due_in(tx: Transaction, now: datetime, *, most: float) -> float:
    """Seconds until the next lease is over or the next attempt is due and nobody's, at most `most`."""
    row = tx.execute(
        text(
            "SELECT least((SELECT min(expires_at) FROM guestkey.lease WHERE state = 'active'),"
            " (SELECT min(deadline) FROM guestkey.lease WHERE state = 'pending'),"
            " (SELECT min(greatest(next_attempt_at, claimed_until)) FROM guestkey.lease"
            "   WHERE state IN ('revoking', 'revoke_failed')))"
        )
    ).scalar_one()
    return most if row is None else max(0.02, min(most, (row - now).total_seconds()))


def record_outcomes(parts: Parts, leases: Sequence[Lease], came_of: Mapping[str, str | Exception]) -> set[str]:
    """Record what came of one attempt at each of these leases. Returns the ids of those that are over now.

    Args:
        came_of: by lease id what confirmed the end, or the error that says why nothing did.

    Raises:
        BackendDown: the records are out of reach; nothing is lost, the attempts are made again.
    """
    confirmed = {id_: said for id_, said in came_of.items() if isinstance(said, str)}
    over = _note_ended(parts, [lease for lease in leases if lease.id in confirmed], confirmed)
    for lease in leases:
        said = came_of[lease.id]
        if isinstance(said, Exposed):
            _note_exposed(parts, lease, said)
        elif isinstance(said, Exception):
            _note_failure(parts, lease, said)
    return over


def _note_ended(parts: Parts, leases: Sequence[Lease], confirmed: Mapping[str, str]) -> set[str]:
    """Many in one transaction: each has its own event all the same."""
    if not leases:
        return set()
    ended: dict[tuple[str, str], list[Lease]] = defaultdict(list)
    over: set[str] = set()
    with parts.database.transaction_now() as (tx, now):
        for lease in leases:
            if lease.activated_at is None and lease.deadline > now:
                # The call that makes the credential may still be in flight: ask again once it cannot be.
                again = update(Lease).where(Lease.id == lease.id)
                tx.execute(again.values(next_attempt_at=lease.deadline, claimed_until=None))
            else:
                ended[_end_state(lease), confirmed[lease.id]].append(lease)
        for (state, said), some in ended.items():
            over |= _set_ended(tx, some, state, said, now)
    for lease in leases:
        if lease.id in over:
            metrics.leases_ended.labels(_end_state(lease), lease.kind).inc()
            if lease.ending_since is not None:
                metrics.end_seconds.labels(lease.kind).observe((now - lease.ending_since).total_seconds())
    return over


def _end_state(lease: Lease) -> str:
    return "expired" if lease.end_cause == "expired" else "revoked"


def _set_ended(tx: Transaction, leases: Sequence[Lease], state: str, said: str, now: datetime) -> set[str]:
    ended = update(Lease).where(Lease.id.in_([lease.id for lease in leases]), Lease.state.in_(_ENDING))
    ended = ended.values(state=state, ended_at=now, confirmed_by=said, claimed_until=None, last_error="")
    changed = set(tx.scalars(ended.returning(Lease.id).execution_options(synchronize_session=False)))
    about = [
        (lease.id, {"cause": lease.end_cause, "confirmed_by": said, "attempts": lease.attempts + 1})
        for lease in leases
        if lease.id in changed
    ]
    audit.record_many(tx, f"lease.{state}", actor=audit.SYSTEM, now=now, about=about)
    return changed


def _note_exposed(parts: Parts, lease: Lease, error: Exposed) -> None:
    """The backend cannot end it sooner: said once, shown until then, and asked again."""
    with parts.database.transaction_now() as (tx, now):
        soonest = now + timedelta(seconds=1)
        until, again = max(error.until, soonest), max(error.again, soonest)
        values = {"state": "revoking", "exposed_until": until, "next_attempt_at": again}
        changed = _note_attempt(tx, lease, error, **values)
        if changed and lease.exposed_until is None:
            details = {"kind": lease.kind, "until": until.isoformat()}
            audit.record(tx, "lease.exposed", actor=audit.SYSTEM, subject=lease.id, now=now, details=details)
    log.warning("lease.exposed", lease=lease.id, until=until.isoformat())


def _note_attempt(tx: Transaction, lease: Lease, error: Exception, **values: object) -> bool:
    """Write down an attempt that ended nothing; whether the lease was still to be ended."""
    ending_still = update(Lease).where(Lease.id == lease.id, Lease.state.in_(_ENDING))
    noted = ending_still.values(**values, claimed_until=None, last_error=str(error)[:500])
    return tx.execute(noted.returning(Lease.id)).one_or_none() is not None


def _note_failure(parts: Parts, lease: Lease, error: Exception) -> None:
    wait = min(SLOWEST_RETRY, 2 ** min(lease.attempts, 6))
    with parts.database.transaction_now() as (tx, now):
        values = {"state": "revoke_failed", "attempts": Lease.attempts + 1}
        changed = _note_attempt(tx, lease, error, **values, next_attempt_at=now + timedelta(seconds=wait))
        if changed and lease.state != "revoke_failed":
            details = {"kind": lease.kind, "error": type(error).__name__, "next_attempt_in": wait}
            audit.record(tx, "lease.revoke_failed", actor=audit.SYSTEM, subject=lease.id, now=now, details=details)
    metrics.leases_ended.labels("revoke_failed", lease.kind).inc()
    log.error("lease.revoke_failed", lease=lease.id, attempts=lease.attempts + 1, error=str(error)[:300])
