"""Making slices real at their backends, by the worker with the setup identity."""

from __future__ import annotations

import structlog
from sqlalchemy import select, update

from broker import audit
from broker.credentials import postgres_slices
from broker.database import now as clock
from broker.errors import BackendDown, Invalid
from broker.models import Slice
from broker.parts import Parts
from broker.vault import Vault, VaultRefused

log = structlog.get_logger(__name__)


def register_waiting(parts: Parts, setup: Vault) -> int:
    """Register every slice that waits for it. Returns how many are ready now.

    A slice that cannot be (no such table) becomes `failed` with the reason; one whose backend is down waits on.
    """
    with parts.database.transaction() as tx:
        waiting = list(tx.scalars(select(Slice).where(Slice.state == "registering").limit(20)))
    ready = 0
    for slice_ in waiting:
        try:
            postgres_slices.register(setup, slice_.id, slice_.binding)
        except BackendDown as error:
            log.warning("slice.waits", slice=slice_.id, backend=error.backend)
            continue
        except Invalid as error:
            _conclude(parts, slice_.id, "failed", error.detail)
        except VaultRefused:
            _conclude(parts, slice_.id, "failed", "The key store refused the setup identity.")
        else:
            _conclude(parts, slice_.id, "ready", "")
            ready += 1
    return ready


def _conclude(parts: Parts, slice_id: str, state: str, detail: str) -> None:
    with parts.database.transaction() as tx:
        changed = tx.execute(
            update(Slice)
            .where(Slice.id == slice_id, Slice.state == "registering")
            .values(state=state, state_detail=detail)
            .returning(Slice.id)
        ).one_or_none()
        if changed is not None:
            audit.record(
                tx, f"slice.{state}", actor=audit.SYSTEM, subject=slice_id, now=clock(tx), details={"detail": detail}
            )
