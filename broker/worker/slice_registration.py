"""Making slices real at their backends and removing retired ones, by the worker with the setup identity.

Any number of workers may, one at a time at each connection: what is granted there at once collides. Slices are claimed
with a deadline column, as leases are in `broker.leases.sweeping`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, exists, func, or_, select, text, tuple_, update
from sqlalchemy.orm import aliased

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.discovery import kinds
from broker.kinds.values import BoundSlice
from broker.log import audit
from broker.models import LIVE_STATES, Dataset, Lease, Slice
from broker.runtime import chores
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
REMOVED = "removed"
# A worker that is slower than this has another beside it, which harms nothing.
CLAIM = timedelta(seconds=60)
_ROUND = 20
# Kind and connection.
Place = tuple[str, str]


def register_waiting(parts: Parts, setup: Vault) -> int:
    """Register every slice that waits for it where no other worker is at it. Returns how many are ready now.

    A slice that cannot be (no such table) becomes `failed` with the reason; one whose backend is down waits on.
    """
    down: set[Place] = set()
    waiting = _claimed(parts, Slice.state == "registering", down)
    return sum(_register(parts, setup, slice_, down) for slice_ in waiting)


def _claimed(parts: Parts, which: ColumnElement[bool], down: Set[Place] = frozenset()) -> Iterator[Slice]:
    """Slices taken on one after the other, so that other workers have their share of those that wait.

    By lot, and without those whose backend was found down meanwhile: a round is bounded, and the same twenty that
    cannot be must not be the whole of every one.
    """
    tried: list[str] = []
    held = aliased(Slice)
    there = (held.kind == Slice.kind, held.binding["connection"].astext == Slice.binding["connection"].astext)
    while len(tried) < _ROUND:
        with parts.database.transaction() as tx:
            # Two that claimed at once would not see each other's.
            tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('slices', 0))"))
            now = clock(tx)
            busy = exists().where(held.claimed_until >= now, *there)
            passed_over = tuple_(Slice.kind, func.coalesce(Slice.binding["connection"].astext, "")).in_(down)
            query = select(Slice).join(Dataset).where(which, ~busy, ~passed_over, Slice.id.not_in(tried))
            # Leases refer to it meanwhile: only its key must stay as it is for them.
            drawn = query.order_by(func.random()).limit(1)
            locked = drawn.with_for_update(of=Slice, skip_locked=True, key_share=True)
            slice_ = tx.scalars(locked).one_or_none()
            if slice_ is None:
                return
            slice_.claimed_until = now + CLAIM
        tried.append(slice_.id)
        yield slice_


def _release_claim(tx: Transaction, slice_: Slice) -> None:
    """Let whichever worker comes next in; what became another's meanwhile stays that one's."""
    mine = (Slice.id == slice_.id, Slice.claimed_until == slice_.claimed_until)
    tx.execute(update(Slice).where(*mine).values(claimed_until=None))


def rebuild(parts: Parts, setup: Vault, slice_id: str) -> None:
    """Make a slice that an earlier version registered as this one does; it stays `ready` and its leases live on.

    Whatever keeps it from that is tried again with the next round.
    """
    for slice_ in _claimed(parts, (Slice.id == slice_id) & (Slice.state == "ready")):
        try:
            rows = kinds[slice_.kind].register(setup, slice_.id, _bound(parts, slice_))
            seen = _seen(setup, slice_)
        except (BackendDown, Invalid, VaultRefused) as error:
            log.warning("slice.not_remade", slice=slice_.id, error=type(error).__name__)
            _release(parts, slice_)
            continue
        with parts.database.transaction() as tx:
            again = update(Slice).where(Slice.id == slice_.id, Slice.state == "ready")
            if tx.execute(again.values(seen=seen, rows_estimate=rows).returning(Slice.id)).first() is not None:
                audit.record(tx, "slice.remade", actor=audit.SYSTEM, subject=slice_.id, now=clock(tx))
            _release_claim(tx, slice_)


def _seen(setup: Vault, slice_: Slice) -> dict[str, Any] | None:
    """What lies behind a slice just made, for those of kinds that can be looked at again."""
    kind = kinds[slice_.kind]
    if not kind.inspects_sources:
        return None
    shown = kind.inspect_sources(setup, str(slice_.binding["connection"]), {slice_.id: slice_.binding})[slice_.id]
    return None if shown is None else dict(shown)


def _register(parts: Parts, setup: Vault, slice_: Slice, down: set[Place]) -> bool:
    try:
        rows = kinds[slice_.kind].register(setup, slice_.id, _bound(parts, slice_))
        seen = _seen(setup, slice_)
    except BackendDown as error:
        log.warning("slice.waits", slice=slice_.id, backend=error.backend)
        down.add((slice_.kind, str(slice_.binding.get("connection", ""))))
        _release(parts, slice_)
    except Invalid as error:
        _finish(parts, slice_, "failed", f"{error.detail} {error.advice}".strip())
    except VaultRefused:
        _finish(parts, slice_, "failed", "The key store refused the log-in of the setup identity.")
    except Exception as error:  # the slices behind it wait for no fault of theirs
        log.exception("slice.unforeseen", slice=slice_.id, error=type(error).__name__)
        _release(parts, slice_)
    else:
        _finish(parts, slice_, "ready", "", rows, seen)
        return True
    return False


def refresh_statements(parts: Parts, setup: Vault, stopping: Callable[[], bool] = lambda: False) -> int:
    """Give the key store this version's statements for every slice in use, once. Returns of how many slices.

    Slices that an earlier version registered are ended by the statements of then, until this has been done.

    Raises:
        BackendDown: the key store does not answer; nothing is harmed by doing all of it once more.
    """
    done = 0
    for kind in kinds.values():
        if not kind.statements:
            continue
        name = f"lend-{kind.name}-{kind.statements}"
        query = (
            select(Slice)
            .join(Dataset)
            .where(Slice.kind == kind.name, Slice.state == "ready", Dataset.status != "retired")
        )
        with parts.database.transaction() as tx:
            slices = [] if chores.is_done(tx, name) else list(tx.scalars(query.order_by(Slice.id)))
        for slice_ in slices:
            if stopping():
                return done
            try:
                kind.update_statements(setup, slice_.id, _bound(parts, slice_))
            except Invalid as error:
                # A binding that is none any more is nobody's to use, and must not keep the others from it.
                log.error("slice.not_lent_again", slice=slice_.id, detail=error.detail)
                continue
            done += 1
        with parts.database.transaction() as tx:
            chores.note_done(tx, name)
    return done


def _bound(parts: Parts, slice_: Slice) -> BoundSlice:
    return BoundSlice(slice_.binding, parts.settings.place(slice_.kind, slice_.binding))


def _release(parts: Parts, slice_: Slice) -> None:
    with parts.database.transaction() as tx:
        _release_claim(tx, slice_)


def _finish(
    parts: Parts,
    slice_: Slice,
    state: str,
    detail: str,
    rows: int | None = None,
    seen: dict[str, Any] | None = None,
) -> None:
    with parts.database.transaction() as tx:
        changed = tx.execute(
            update(Slice)
            .where(Slice.id == slice_.id, Slice.state == "registering")
            .values(state=state, state_detail=detail, rows_estimate=rows, seen=seen)
            .returning(Slice.id)
        ).one_or_none()
        if changed is not None:
            audit.record(
                tx, f"slice.{state}", actor=audit.SYSTEM, subject=slice_.id, now=clock(tx), details={"detail": detail}
            )
        _release_claim(tx, slice_)


def remove_retired(parts: Parts, setup: Vault) -> int:
    """Remove retired slices, and those of retired datasets, once every lease on them has ended. Returns how many."""
    # By dataset too, because that is what live leases are indexed by.
    live = exists().where(
        Lease.dataset_id == Slice.dataset_id, Lease.slice_id == Slice.id, Lease.state.in_(LIVE_STATES)
    )
    over = or_(Slice.state == "retired", Dataset.status == "retired")
    return sum(
        _remove(parts, setup, slice_) for slice_ in _claimed(parts, over & (Slice.state_detail != REMOVED) & ~live)
    )


def _remove(parts: Parts, setup: Vault, slice_: Slice) -> bool:
    try:
        kinds[slice_.kind].unregister(setup, slice_.id, _bound(parts, slice_))
    except (BackendDown, Invalid, VaultRefused) as error:
        log.warning("slice.not_removed", slice=slice_.id, error=type(error).__name__)
        _release(parts, slice_)
        return False
    with parts.database.transaction() as tx:
        removed = tx.execute(
            update(Slice)
            .where(Slice.id == slice_.id, Slice.state_detail != REMOVED)
            .values(state="retired", state_detail=REMOVED)
            .returning(Slice.id)
        ).one_or_none()
        if removed is not None:
            audit.record(tx, "slice.removed", actor=audit.SYSTEM, subject=slice_.id, now=clock(tx), details={})
        _release_claim(tx, slice_)
    return removed is not None
