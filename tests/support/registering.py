"""Making slices real, where other tests left slices that wait, too, and a worker that runs beside may be at them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from broker.models import Dataset, Slice
from broker.runtime.parts import vault_of
from broker.worker import slice_registration

if TYPE_CHECKING:
    from tests.support.world import World


def register_waiting(world: World) -> None:
    """Register what waits for it, in as many rounds as that takes; what cannot be is left waiting, or failed."""
    waiting, left, before = select(func.count()).where(Slice.state == "registering"), -1, None
    while left not in (0, before):
        before = left
        slice_registration.register_waiting(world.ender, vault_of(world.settings, "setup"))
        with world.database.transaction() as tx:
            left = tx.scalars(waiting).one()


def register(world: World, dataset: Dataset) -> None:
    """Make a dataset's slices real; a worker that died of a test while it was at them keeps them for its claim."""
    end = time.monotonic() + 15 + slice_registration.CLAIM.total_seconds()
    waiting = select(Slice.state_detail).where(Slice.dataset_id == dataset.id, Slice.state != "ready")
    while True:
        register_waiting(world)
        with world.database.transaction() as tx:
            unready = tx.scalars(waiting).all()
        if not unready:
            return
        assert time.monotonic() < end, f"slices are not ready: {unready}"
        time.sleep(0.05)
