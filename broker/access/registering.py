"""Making slices real at their backends and removing retired ones, by the worker with the setup identity."""

from __future__ import annotations

import structlog
from sqlalchemy import exists, or_, select, update

from broker import audit
from broker.credentials import kinds
from broker.credentials.base import Bound
from broker.database import now as clock
from broker.errors import BackendDown, Invalid
from broker.models import LIVE_STATES, Dataset, Lease, Slice
from broker.parts import Parts
from broker.vault import Vault, VaultRefused

log = structlog.get_logger(__name__)
REMOVED = "removed"


def register_waiting(parts: Parts, setup: Vault) -> int:
    """Register every slice that waits for it. Returns how many are ready now.

    A slice that cannot be (no such table) becomes `failed` with the reason; one whose backend is down waits on.
    """
    with parts.database.transaction() as tx:
        waiting = list(tx.scalars(select(Slice).where(Slice.state == "registering").limit(20)))
    ready = 0
    for slice_ in waiting:
        try:
            rows = kinds[slice_.kind].register(setup, slice_.id, _bound(parts, slice_))
        except BackendDown as error:
            log.warning("slice.waits", slice=slice_.id, backend=error.backend)
            continue
        except Invalid as error:
            _conclude(parts, slice_.id, "failed", f"{error.detail} {error.advice}".strip())
        except VaultRefused:
            _conclude(parts, slice_.id, "failed", "The key store refused the setup identity.")
        except Exception as error:  # the slices behind it wait for no fault of theirs
            log.exception("slice.unforeseen", slice=slice_.id, error=type(error).__name__)
        else:
            _conclude(parts, slice_.id, "ready", "", rows)
            ready += 1
    return ready


def _bound(parts: Parts, slice_: Slice) -> Bound:
    return Bound(slice_.binding, parts.settings.place(slice_.kind, slice_.binding))


def _conclude(parts: Parts, slice_id: str, state: str, detail: str, rows: int | None = None) -> None:
    with parts.database.transaction() as tx:
        changed = tx.execute(
            update(Slice)
            .where(Slice.id == slice_id, Slice.state == "registering")
            .values(state=state, state_detail=detail, rows_estimate=rows)
            .returning(Slice.id)
        ).one_or_none()
        if changed is not None:
            audit.record(
                tx, f"slice.{state}", actor=audit.SYSTEM, subject=slice_id, now=clock(tx), details={"detail": detail}
            )


def remove_retired(parts: Parts, setup: Vault) -> int:
    """Remove retired slices, and those of retired datasets, once every lease on them has ended. Returns how many."""
    # By dataset too, because that is what live leases are indexed by.
    live = exists().where(
        Lease.dataset_id == Slice.dataset_id, Lease.slice_id == Slice.id, Lease.state.in_(LIVE_STATES)
    )
    over = or_(Slice.state == "retired", Dataset.status == "retired")
    query = select(Slice).join(Dataset).where(over, Slice.state_detail != REMOVED, ~live).limit(20)
    with parts.database.transaction() as tx:
        waiting = list(tx.scalars(query))
    return sum(_remove(parts, setup, slice_) for slice_ in waiting)


def _remove(parts: Parts, setup: Vault, slice_: Slice) -> bool:
    try:
        kinds[slice_.kind].unregister(setup, slice_.id, _bound(parts, slice_))
    except (BackendDown, Invalid, VaultRefused) as error:
        log.warning("slice.not_removed", slice=slice_.id, error=type(error).__name__)
        return False
    with parts.database.transaction() as tx:
        tx.execute(update(Slice).where(Slice.id == slice_.id).values(state="retired", state_detail=REMOVED))
        audit.record(tx, "slice.removed", actor=audit.SYSTEM, subject=slice_.id, now=clock(tx), details={})
    return True
