"""Ending every credential there is, without web or worker: straight against the records, OpenBao and the backends.

With the records at hand the ordinary way is taken, so that events and outcomes are on record. Without them whatever a
backend shows under this installation's tag is ended there. Nothing here issues, and nothing opens again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from time import monotonic, sleep

from sqlalchemy import select

from broker.access import closing, sweeping
from broker.credentials import kinds
from broker.credentials.base import LeaseToEnd, NotEnded
from broker.database import now as clock
from broker.errors import BackendDown
from broker.models import LIVE_STATES, Lease
from broker.parts import Parts
from broker.vault import VaultRefused

_PAUSE_SECONDS = 0.2
Told = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one credential. `exposed_until` is set where nothing confirmed its end yet."""

    lease: str
    kind: str
    state: str
    confirmed_by: str = ""
    ended_at: datetime | None = None
    exposed_until: datetime | None = None
    error: str = ""

    @property
    def confirmed(self) -> bool:
        """Whether a backend said that it is gone."""
        return self.state in ("revoked", "expired")


def end_recorded(parts: Parts, why: str, *, seconds: float, told: Told) -> list[Outcome]:
    """Close the installation and end all leases on record, then what the backends show besides.

    Args:
        seconds: how long to keep trying; what is left then is retried by the worker when it runs again.
        told: called with how many leases there are, are confirmed, and failed at least once.

    Raises:
        BackendDown: the records are out of reach; see `end_shown`.
        Invalid: the installation was never set up.
    """
    with parts.database.transaction() as tx:
        closing.close(tx, why, actor="operator", now=clock(tx))
    closing.put_out(parts)
    ids = _live_ids(parts)
    until = monotonic() + seconds
    with ThreadPoolExecutor(sweeping.HANDS) as pool:
        while True:
            sweeping.end_marked(parts, pool)
            outcomes = _outcomes(parts, ids)
            confirmed = sum(outcome.confirmed for outcome in outcomes)
            told(len(ids), confirmed, sum(outcome.state == "revoke_failed" for outcome in outcomes))
            if confirmed == len(ids) or monotonic() >= until:
                break
            sleep(_PAUSE_SECONDS)
    sweeping.reconcile(parts)
    return outcomes


def end_shown(parts: Parts, tag: str, connections: Iterable[str], *, told: Told) -> list[Outcome]:
    """Without the records: end what the backends themselves show with our tag, on these connections."""
    bindings: list[Mapping[str, str]] = [{"connection": name} for name in sorted(connections)]
    shown = [
        (name, handle, binding)
        for name, kind in kinds.items()
        for handle, binding in kind.handles(parts.vault, tag, bindings).items()
    ]
    outcomes: list[Outcome] = []
    for name, handle, binding in shown:
        outcomes.append(_end_by_hand(parts, tag, name, handle, binding))
        told(len(shown), sum(outcome.confirmed for outcome in outcomes), sum(not o.confirmed for o in outcomes))
    return outcomes


def _end_by_hand(parts: Parts, tag: str, kind: str, handle: str, binding: Mapping[str, object]) -> Outcome:
    lease_id = handle.removeprefix(f"{tag}-")
    try:
        confirmed_by = kinds[kind].end(parts.vault, LeaseToEnd(lease_id, handle, binding))
    except (NotEnded, BackendDown, VaultRefused) as error:
        return Outcome(lease_id, kind, "revoke_failed", error=str(error))
    return Outcome(lease_id, kind, "revoked", confirmed_by)


def _live_ids(parts: Parts) -> Sequence[str]:
    with parts.database.transaction() as tx:
        return tx.scalars(select(Lease.id).where(Lease.state.in_(LIVE_STATES)).order_by(Lease.id)).all()


def _outcomes(parts: Parts, ids: Sequence[str]) -> list[Outcome]:
    with parts.database.transaction() as tx:
        leases = tx.scalars(select(Lease).where(Lease.id.in_(ids)).order_by(Lease.id)).all()
        return [
            Outcome(
                lease.id,
                lease.kind,
                lease.state,
                lease.confirmed_by,
                lease.ended_at,
                None if lease.ended_at else lease.expires_at,
                lease.last_error,
            )
            for lease in leases
        ]
