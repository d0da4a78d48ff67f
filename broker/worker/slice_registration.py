"""What the worker does with the setup identity: making slices real, looking at them again, reading tables' names.

Any number of workers may register, one at a time at each connection: what is granted there at once collides. Slices
are claimed with a deadline column, as leases are in `broker.leases.sweeping`; retired ones are removed.

A slice is what its owner saw, or nothing is issued from it: a table that was renamed, replaced or changed is noticed
within a minute. The slice is `changed` from then on, its leases end, and its owner is told; by
`broker.registry.slices.confirm_slice` the owner says that it is right as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, delete, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import aliased

from broker.base.database import Transaction, clock, one_at_a_time
from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.discovery import kinds
from broker.kinds.values import BoundSlice, FoundTable
from broker.log import audit
from broker.models import LIVE_STATES, Catalogue, CatalogueTable, Dataset, Lease, Slice
from broker.registry import connections
from broker.revocation import ending
from broker.runtime import chores
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
REMOVED = "removed"
# A worker that is slower than this has another beside it, which harms nothing.
CLAIM = timedelta(seconds=60)
_ROUND = 20
# Kind and connection.
Place = tuple[str, str]
# A round begins every so many seconds and takes one question for each connection: within a minute all are asked.
LOOK_SECONDS = 20.0
_AT_ONCE = 5


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
            one_at_a_time(tx, "slices")
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
        _note(parts, slice_, "slice.remade", Slice.state == "ready", seen=seen, rows_estimate=rows)


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
        query = _in_use(Slice.kind == kind.name)
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


def _in_use(which: ColumnElement[bool]) -> Select[Slice]:
    return select(Slice).join(Dataset).where(which, Slice.state == "ready", Dataset.status != "retired")


def _bound(parts: Parts, slice_: Slice) -> BoundSlice:
    return BoundSlice(slice_.binding, parts.settings.place(slice_.kind, slice_.binding))


def _release(parts: Parts, slice_: Slice) -> None:
    with parts.database.transaction() as tx:
        _release_claim(tx, slice_)


def _finish(
    parts: Parts, slice_: Slice, state: str, detail: str, rows: int | None = None, seen: dict[str, Any] | None = None
) -> None:
    values = {"state": state, "state_detail": detail, "rows_estimate": rows, "seen": seen}
    _note(parts, slice_, f"slice.{state}", Slice.state == "registering", {"detail": detail}, **values)


def _note(
    parts: Parts,
    slice_: Slice,
    event: str,
    still: ColumnElement[bool],
    details: Mapping[str, str] | None = None,
    **values: object,
) -> bool:
    """Record what became of a claimed slice, if it is `still` what it was claimed as, and let others in."""
    with parts.database.transaction() as tx:
        noted = update(Slice).where(Slice.id == slice_.id, still).values(**values).returning(Slice.id)
        changed = tx.execute(noted).first() is not None
        if changed:
            audit.record(tx, event, actor=audit.SYSTEM, subject=slice_.id, now=clock(tx), details=details)
        _release_claim(tx, slice_)
    return changed


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
    return _note(parts, slice_, "slice.removed", Slice.state_detail != REMOVED, state="retired", state_detail=REMOVED)


def recheck_slices(parts: Parts, setup: Vault) -> int:
    """Compare what lies behind each slice with what did when it was registered. Returns how many have changed.

    A connection that does not answer is passed over: see `broker.leases.reconciling`; it gives no credentials.
    """
    of = [name for name, kind in kinds.items() if kind.inspects_sources]
    with parts.database.transaction() as tx:
        ready = tx.scalars(_in_use(Slice.kind.in_(of))).all()
    there: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for slice_ in ready:
        there[slice_.kind, str(slice_.binding.get("connection", ""))].append(slice_)
    return sum(
        _recheck_connection(parts, setup, kind, connection, some) for (kind, connection), some in sorted(there.items())
    )


def _recheck_connection(parts: Parts, setup: Vault, kind_name: str, connection: str, slices: list[Slice]) -> int:
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
            changed += _mark_changed(parts, slice_, told, now)
        elif kind.outdated(slice_.seen):
            rebuild(parts, setup, slice_.id)
    return changed


def _mark_changed(parts: Parts, slice_: Slice, told: str, shown: Mapping[str, Any] | None) -> bool:
    """Close a slice whose table has changed, unless it was registered anew meanwhile. Its leases end."""
    with parts.database.transaction_now() as (tx, now):
        same = (Slice.id == slice_.id, Slice.state == "ready", Slice.seen.is_not_distinct_from(slice_.seen))
        closed = update(Slice).where(*same).values(state="changed", state_detail=told).returning(Slice.id)
        if tx.execute(closed).one_or_none() is None:
            return False
        on_it = (Lease.dataset_id == slice_.dataset_id) & (Lease.slice_id == slice_.id)
        leases = ending.mark(tx, on_it, cause="slice_changed", by=audit.SYSTEM, now=now)
        details = {"detail": told, "leases_ending": len(leases), "dataset": slice_.dataset_id}
        audit.record(tx, "slice.changed", actor=audit.SYSTEM, subject=slice_.id, now=now, details=details)
    log.warning("slice.changed", slice=slice_.id, was=slice_.seen, now=shown)
    return True


def read_catalogues(parts: Parts, setup: Vault) -> int:
    """Read every catalogue that was asked for. Returns how many were read."""
    with parts.database.transaction() as tx:
        waiting = tx.scalars(select(Catalogue.connection).where(Catalogue.state == "waiting").limit(_AT_ONCE)).all()
    read = 0
    for name in waiting:
        try:
            tables, cut = connections.CATALOGUE_KIND.read_catalogue(setup, name)
        except (BackendDown, VaultRefused) as error:
            log.warning("catalogue.failed", connection=name, error=type(error).__name__)
            _fail_catalogue(parts, name)
        else:
            _keep_catalogue(parts, name, tables, cut=cut)
            read += 1
    return read


def _keep_catalogue(parts: Parts, name: str, tables: list[FoundTable], *, cut: bool) -> None:
    """Replace what was known of a connection, all at once."""
    with parts.database.transaction_now() as (tx, now):
        if not _set_waiting(tx, name, state="ready", detail="", read_at=now, tables=len(tables), cut=cut):
            return
        tx.execute(delete(CatalogueTable).where(CatalogueTable.connection == name))
        if tables:
            tx.execute(insert(CatalogueTable), [{"connection": name, **asdict(found)} for found in tables])
        audit.record(tx, "catalogue.read", actor=audit.SYSTEM, subject=name, now=now, details={"tables": len(tables)})


def _fail_catalogue(parts: Parts, name: str) -> None:
    detail = "The database is not responding, or the worker cannot log in to it."
    with parts.database.transaction() as tx:
        if _set_waiting(tx, name, state="failed", detail=detail):
            audit.record(tx, "catalogue.failed", actor=audit.SYSTEM, subject=name, now=clock(tx))


def _set_waiting(tx: Transaction, name: str, **values: object) -> bool:
    waiting = update(Catalogue).where(Catalogue.connection == name, Catalogue.state == "waiting")
    return tx.execute(waiting.values(**values).returning(Catalogue.connection)).first() is not None
