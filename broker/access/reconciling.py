"""Finding what nobody recorded: every backend is asked for handles with our tag, and those without a lease are ended.

Only handles of this installation are looked at; whatever else a backend holds is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import bindparam, select

from broker import audit, metrics
from broker.credentials import kinds
from broker.credentials.base import Bound, Exposed, LeaseToEnd, NotEnded, Seen, Shown
from broker.database import now as clock
from broker.errors import BackendDown
from broker.models import Lease, Slice
from broker.parts import Parts
from broker.vault import VaultRefused

log = structlog.get_logger(__name__)


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
