"""What came of attempts to end leases, written down: ended, exposed until a moment, or failed and to be tried again.

A backend's confirmation is all that makes a lease `revoked` or `expired`. Nothing here talks to a backend.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import update

from broker.base import metrics
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.kinds.values import Exposed
from broker.log import audit
from broker.models import Lease
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
SLOWEST_RETRY = 60
_ENDING = ("revoking", "revoke_failed")


def record(parts: Parts, leases: Sequence[Lease], came_of: Mapping[str, str | Exception]) -> set[str]:
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
    with parts.database.transaction() as tx:
        now = clock(tx)
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
    changed = set(
        tx.scalars(
            update(Lease)
            .where(Lease.id.in_([lease.id for lease in leases]), Lease.state.in_(_ENDING))
            .values(state=state, ended_at=now, confirmed_by=said, claimed_until=None, last_error="")
            .returning(Lease.id)
            .execution_options(synchronize_session=False)
        )
    )
    about = [
        (lease.id, {"cause": lease.end_cause, "confirmed_by": said, "attempts": lease.attempts + 1})
        for lease in leases
        if lease.id in changed
    ]
    audit.record_many(tx, f"lease.{state}", actor=audit.SYSTEM, now=now, about=about)
    return changed


def _note_exposed(parts: Parts, lease: Lease, error: Exposed) -> None:
    """The backend cannot end it sooner: said once, shown until then, and asked again."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        soonest = now + timedelta(seconds=1)
        until, again = max(error.until, soonest), max(error.again, soonest)
        changed = tx.execute(
            update(Lease)
            .where(Lease.id == lease.id, Lease.state.in_(_ENDING))
            .values(
                state="revoking",
                exposed_until=until,
                next_attempt_at=again,
                claimed_until=None,
                last_error=str(error)[:500],
            )
            .returning(Lease.id)
        ).one_or_none()
        if changed is not None and lease.exposed_until is None:
            details = {"kind": lease.kind, "until": until.isoformat()}
            audit.record(tx, "lease.exposed", actor=audit.SYSTEM, subject=lease.id, now=now, details=details)
    log.warning("lease.exposed", lease=lease.id, until=until.isoformat())


def _note_failure(parts: Parts, lease: Lease, error: Exception) -> None:
    wait = min(SLOWEST_RETRY, 2 ** min(lease.attempts, 6))
    with parts.database.transaction() as tx:
        now = clock(tx)
        changed = tx.execute(
            update(Lease)
            .where(Lease.id == lease.id, Lease.state.in_(_ENDING))
            .values(
                state="revoke_failed",
                attempts=Lease.attempts + 1,
                next_attempt_at=now + timedelta(seconds=wait),
                claimed_until=None,
                last_error=str(error)[:500],
            )
            .returning(Lease.id)
        ).one_or_none()
        if changed is not None and lease.state != "revoke_failed":
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
