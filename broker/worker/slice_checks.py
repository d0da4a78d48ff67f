"""Looking again at what lies behind slices: a slice is what its owner saw, or nothing is issued from it.

A table that was renamed, replaced or changed is noticed within a minute. The slice is `changed` from then on, its
leases end, and its owner is told; by `broker.registry.slices.confirm_slice` the owner says that it is right as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy import select, update

from broker.base.database import now as clock
from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.discovery import kinds
from broker.log import audit
from broker.models import Dataset, Lease, Slice
from broker.revocation import ending
from broker.runtime.parts import Parts
from broker.worker import slice_registration

log = structlog.get_logger(__name__)
# A round begins every so many seconds and takes one question for each connection: within a minute all are asked.
LOOK_SECONDS = 20.0


def recheck_slices(parts: Parts, setup: Vault) -> int:
    """Compare what lies behind each slice with what did when it was registered. Returns how many have changed.

    A connection that does not answer is passed over: see `broker.leases.unreachable`; it gives no credentials.
    """
    of = [name for name, kind in kinds.items() if kind.inspects_sources]
    query = select(Slice).join(Dataset).where(Slice.state == "ready", Slice.kind.in_(of), Dataset.status != "retired")
    with parts.database.transaction() as tx:
        ready = tx.scalars(query).all()
    there: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for slice_ in ready:
        there[slice_.kind, str(slice_.binding.get("connection", ""))].append(slice_)
    return sum(_look(parts, setup, kind, connection, some) for (kind, connection), some in sorted(there.items()))


def _look(parts: Parts, setup: Vault, kind_name: str, connection: str, slices: list[Slice]) -> int:
    kind = kinds[kind_name]
    try:
        shown = kind.inspect_sources(setup, connection, {slice_.id: slice_.binding for slice_ in slices})
    except (BackendDown, VaultRefused, Invalid) as error:
        log.warning("slices.not_looked_at", kind=kind_name, connection=connection, error=type(error).__name__)
        return 0
    changed = 0
    for slice_ in slices:
        now = shown.get(slice_.id)
        told = kind.difference(slice_.seen, now, slice_.binding)
        if told:
            changed += _mark(parts, slice_, told, now)
        elif kind.outdated(slice_.seen):
            slice_registration.rebuild(parts, setup, slice_.id)
    return changed


def _mark(parts: Parts, slice_: Slice, told: str, shown: Mapping[str, Any] | None) -> bool:
    """Close a slice whose table has changed, unless it was registered anew meanwhile. Its leases end."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        same = (Slice.id == slice_.id, Slice.state == "ready", Slice.seen.is_not_distinct_from(slice_.seen))
        closed = update(Slice).where(*same).values(state="changed", state_detail=told).returning(Slice.id)
        if tx.execute(closed).one_or_none() is None:
            return False
        leases = ending.mark(
            tx,
            (Lease.dataset_id == slice_.dataset_id) & (Lease.slice_id == slice_.id),
            cause="slice_changed",
            by=audit.SYSTEM,
            now=now,
        )
        details = {"detail": told, "leases_ending": len(leases), "dataset": slice_.dataset_id}
        audit.record(tx, "slice.changed", actor=audit.SYSTEM, subject=slice_.id, now=now, details=details)
    log.warning("slice.changed", slice=slice_.id, was=slice_.seen, now=shown)
    return True
