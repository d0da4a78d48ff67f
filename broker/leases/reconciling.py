"""Finding what nobody recorded, and what is recorded and gone: every backend is asked what it shows with our tag.

Only handles of this installation are looked at; whatever else a backend holds is never touched. A place that could not
be asked is said once when it begins, remembered, and said when it ends: while it is silent nothing is known of what
lives there, so that is an alarm and never a clean bill.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from broker.base import metrics
from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown, GuestkeyError
from broker.keystore.vault import VaultRefused
from broker.kinds.discovery import kinds
from broker.kinds.values import BROKER, BackendListing, BoundSlice, Exposed, LeaseToEnd, ListedCredential, NotEnded
from broker.log import audit
from broker.models import LIVE_STATES, Lease, Slice, UnreachablePlace
from broker.revocation import ending
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
KEY_STORE = "key store"
# What is younger may not be on record yet; what was never activated is gone by then.
_SETTLED = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class BackendOutcome:
    """What became of one credential. `exposed_until` is set where nothing confirmed its end yet.

    Without a lease it is a place that could not be asked (`unasked`): whatever is there lives on.
    """

    lease: str
    kind: str
    state: str
    confirmed_by: str = ""
    ended_at: datetime | None = None
    exposed_until: datetime | None = None
    error: str = ""
    place: str = ""

    @property
    def confirmed(self) -> bool:
        """Whether a backend said that it is gone."""
        return self.state in ("revoked", "expired")


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a round of asking the backends found, and what each kind's backends answered.

    `vanished` are leases whose credential, or the key store's lease of it, was gone: they are ending now.
    `forgotten` are the key store's leases that had outlived their credentials.
    """

    strays: list[BackendOutcome] = field(default_factory=list)
    shown: dict[str, BackendListing] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """How many strays are gone."""
        return sum(not stray.error for stray in self.strays)


def reconcile(parts: Parts) -> Reconciled:
    """Ask every backend for handles with our tag and end those no living lease accounts for.

    The backends are listed first and our rows read afterwards, so a lease made in between is never mistaken.
    """
    with parts.database.transaction() as tx:
        began = clock(tx)
        rows = tx.execute(select(Slice.id, Slice.kind, Slice.binding).where(Slice.state != "registering")).all()
    found = Reconciled()
    for name in kinds:
        slices = {
            id_: BoundSlice(binding, parts.settings.place(name, binding)) for id_, of, binding in rows if of == name
        }
        try:
            _reconcile_kind(parts, name, slices, began, found)
        except GuestkeyError:
            raise
        except Exception as error:  # a fault of ours in one kind must not hide what the others' backends show
            log.exception("reconcile.unforeseen", kind=name, error=type(error).__name__)
            found.shown[name] = BackendListing(unasked={BROKER: _failed(error)})
            note_silent(parts, name, frozenset(), found.shown[name].unasked)
    return found


def list_handles(parts: Parts, tag: str, kind: str, bounds: Sequence[BoundSlice]) -> BackendListing:
    """What a kind's backends show; should the broker fail at asking, that is said as of a place that was not asked."""
    try:
        return kinds[kind].list_credentials(parts.vault, tag, bounds)
    except Exception as error:  # in an emergency what the others' backends show must be ended all the same
        log.exception("reconcile.unforeseen", kind=kind, error=type(error).__name__)
        return BackendListing(unasked={BROKER: _failed(error)})


def _failed(error: Exception) -> str:
    return f"The worker failed with {type(error).__name__}; see its log."


def _reconcile_kind(
    parts: Parts, name: str, slices: Mapping[str, BoundSlice], began: datetime, found: Reconciled
) -> None:
    shown = found.shown[name] = kinds[name].list_credentials(parts.vault, parts.tag, list(slices.values()))
    kept, untold = _kept(parts, name, frozenset(slices))
    handles = shown.handles
    unaccounted = sorted(handles.keys() - _accounted_for(parts, set(handles)))
    found.strays.extend(_end_orphan(parts, name, handle, handles[handle]) for handle in unaccounted)
    found.vanished.extend(_end_vanished(parts, name, shown, kept, began))
    found.forgotten.extend(_forget(parts, name, kept or frozenset(), began))
    note_silent(parts, name, shown.asked | ({KEY_STORE} if not untold else set()), {**shown.unasked, **untold})


def _kept(parts: Parts, name: str, slice_ids: frozenset[str]) -> tuple[frozenset[str] | None, Mapping[str, str]]:
    """The key store's leases of a kind that keeps any, or why they are not known."""
    kind = kinds[name]
    if not kind.keeps_leases:
        return None, {}
    try:
        return kind.keystore_leases(parts.vault, slice_ids), {}
    except BackendDown as error:
        return None, {KEY_STORE: error.detail}
    except VaultRefused:
        return None, {KEY_STORE: "The key store does not allow the worker to list its leases."}


def _accounted_for(parts: Parts, handles: set[str]) -> set[str]:
    if not handles:
        return set()
    with parts.database.transaction() as tx:
        living = select(Lease.handle).where(Lease.handle.in_(sorted(handles)), Lease.state.in_(LIVE_STATES))
        return set(tx.scalars(living))


def _end_vanished(
    parts: Parts, name: str, shown: BackendListing, kept: frozenset[str] | None, began: datetime
) -> Sequence[str]:
    """Leases shown as active whose credential is gone, or would outlive us: an honest record says so."""
    if not shown.complete and kept is None:
        return []
    with parts.database.transaction() as tx:
        active = tx.execute(
            select(Lease, Slice.binding)
            .join(Slice, Slice.id == Lease.slice_id)
            .where(Lease.kind == name, Lease.state == "active", Lease.activated_at < began)
        ).all()
    gone = [
        lease.id for lease, binding in active if _is_gone(lease, binding, shown) or _is_lost(parts, lease, kept, began)
    ]
    if not gone:
        return []
    with parts.database.transaction_now() as (tx, now):
        marked = ending.mark(tx, Lease.id.in_(gone), cause="vanished", by=audit.SYSTEM, now=now)
        about = [(lease_id, {"kind": name}) for lease_id in marked]
        audit.record_many(tx, "lease.vanished", actor=audit.SYSTEM, now=now, about=about)
    for lease_id in marked:
        metrics.vanished.labels(name).inc()
        log.error("lease.vanished", lease=lease_id, kind=name)
    return marked


def _is_gone(lease: Lease, binding: Mapping[str, Any], shown: BackendListing) -> bool:
    """Whether the backend, which was asked, does not show the credential."""
    asked = shown.complete and BoundSlice(binding).connection in shown.asked
    return asked and lease.handle not in shown.handles


def _is_lost(parts: Parts, lease: Lease, kept: frozenset[str] | None, began: datetime) -> bool:
    """Whether the key store does not list its lease of the credential and, asked by name, does not know it either."""
    if kept is None or lease.backend_lease_id is None or lease.backend_lease_id in kept:
        return False
    if lease.activated_at is None or lease.activated_at >= began - _SETTLED:
        return False
    try:
        return parts.vault.lease_begun(lease.backend_lease_id) is None
    except (BackendDown, VaultRefused):
        return False


def _forget(parts: Parts, name: str, kept: frozenset[str], began: datetime) -> list[str]:
    """Let the key store forget leases that no living lease of ours accounts for: their credential is gone."""
    if not kept:
        return []
    with parts.database.transaction() as tx:
        query = select(Lease.backend_lease_id).where(Lease.kind == name, Lease.state.in_(LIVE_STATES))
        living = set(tx.scalars(query))
    forgotten: list[str] = []
    for lease_id in sorted(kept - living):
        try:
            begun = parts.vault.lease_begun(lease_id)
        except (BackendDown, VaultRefused):
            return forgotten
        # A younger one belongs to a credential that is being made.
        if begun is not None and begun < began - _SETTLED:
            kinds[name].settle(parts.vault, LeaseToEnd("", "", {}, lease_id))
            forgotten.append(lease_id)
            log.warning("lease.forgotten", kind=name)
    return forgotten


def end_orphans(parts: Parts, tag: str, kind: str, handle: str, seen: ListedCredential) -> BackendOutcome:
    """End what a backend shows, where it was seen; nothing of it is on record afterwards."""
    lease_id = handle.removeprefix(f"{tag}-")
    try:
        bound = seen.bound
        to_end = LeaseToEnd(lease_id, handle, bound.binding, seen.backend_lease_id, place=bound.place)
        return BackendOutcome(lease_id, kind, "revoked", kinds[kind].end(parts.vault, to_end))
    except (NotEnded, Exposed, BackendDown, VaultRefused) as error:
        log.error("stray.not_ended", handle=handle, error=str(error)[:200])
        return BackendOutcome(lease_id, kind, "revoke_failed", error=str(error)[:500])
    except Exception as error:  # one that cannot be worked at must not keep the others alive
        log.exception("stray.unforeseen", handle=handle, error=type(error).__name__)
        return BackendOutcome(lease_id, kind, "revoke_failed", error=_failed(error))


def _end_orphan(parts: Parts, kind: str, handle: str, seen: ListedCredential) -> BackendOutcome:
    """End what should not exist, and say so in the log of events."""
    stray = end_orphans(parts, parts.tag, kind, handle, seen)
    if stray.error:
        return stray
    with parts.database.transaction() as tx:
        now, details = clock(tx), {"kind": kind}
        audit.record(tx, "lease.stray_ended", actor=audit.SYSTEM, subject=stray.lease, now=now, details=details)
    metrics.strays.labels(kind).inc()
    log.error("stray.ended", handle=handle, kind=kind)
    return stray


def note_silent(parts: Parts, kind: str, asked: Collection[str], unasked: Mapping[str, str]) -> None:
    """What the places of a kind answered in one round. One that is silent still is no new event.

    Args:
        unasked: by place, why it could not be asked.
    """
    with parts.database.transaction_now() as (tx, now):
        known = dict(
            tx.execute(select(UnreachablePlace.place, UnreachablePlace.why).where(UnreachablePlace.kind == kind)).all()
        )
        for place, why in unasked.items():
            log.error("place.silent", kind=kind, place=place, why=why[:200])
            new = insert(UnreachablePlace).values(kind=kind, place=place, why=why).on_conflict_do_nothing()
            if tx.execute(new.returning(UnreachablePlace.place)).one_or_none() is not None:
                _place_event(tx, "place.silent", now, kind, place, why=why)
        # A place no slice lives at any more is forgotten without a word.
        for place in sorted(known.keys() - unasked.keys()):
            over = delete(UnreachablePlace).where(UnreachablePlace.kind == kind, UnreachablePlace.place == place)
            if tx.execute(over.returning(UnreachablePlace.place)).one_or_none() is not None and place in asked:
                _place_event(tx, "place.answered", now, kind, place)


def count_silent(tx: Transaction) -> dict[str, int]:
    """How many places of each kind were silent when last asked."""
    query = select(UnreachablePlace.kind, func.count()).group_by(UnreachablePlace.kind)
    return dict(tx.execute(query).all())


def _place_event(tx: Transaction, event: str, now: datetime, kind: str, place: str, **more: str) -> None:
    details = {"kind": kind, "place": place, **more}
    audit.record(tx, event, actor=audit.SYSTEM, subject=f"{kind}:{place}"[:80], now=now, details=details)
