"""Ending every credential there is, without web or worker: straight against the records, OpenBao and the backends.

With the records at hand the ordinary way is taken, so that events and outcomes are on record. Without them whatever a
backend shows under this installation's tag is ended there. Nothing here issues, and nothing opens again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep

from sqlalchemy import select

from broker.base.database import clock
from broker.kinds.discovery import kinds
from broker.kinds.values import BackendListing, BoundSlice
from broker.leases import reconciling, sweeping
from broker.leases.reconciling import BackendOutcome
from broker.models import LIVE_STATES, Lease
from broker.revocation import closing
from broker.runtime.parts import Parts

_PAUSE_SECONDS = 0.2
UNASKED = "unasked"
Told = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class EmergencyReport:
    """What became of everything; `answered` are the places that said what they hold.

    `doubt` says why finding nothing may mean that the wrong thing was looked for.
    """

    outcomes: list[BackendOutcome]
    answered: frozenset[str]
    doubt: str = ""

    @property
    def confirmed(self) -> bool:
        """Whether nothing is left that could be alive."""
        return not self.doubt and all(outcome.confirmed for outcome in self.outcomes)

    @property
    def unheard(self) -> bool:
        """Whether backends were asked and not one answered."""
        silent = any(outcome.state == UNASKED for outcome in self.outcomes)
        return silent and not self.answered and not any(outcome.confirmed for outcome in self.outcomes)


def end_recorded(parts: Parts, why: str, *, seconds: float, told: Told) -> EmergencyReport:
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
    closing.end_sessions_batch(parts)
    with parts.database.transaction() as tx:
        ids = tx.scalars(select(Lease.id).where(Lease.state.in_(LIVE_STATES)).order_by(Lease.id)).all()
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
    reconciled = reconciling.reconcile(parts)
    outcomes += reconciled.strays
    return EmergencyReport(outcomes + _unasked(reconciled.shown), _answered(reconciled.shown))


def end_shown(parts: Parts, tag: str, *, told: Told) -> EmergencyReport:
    """Without the records: end what the backends themselves show with our tag."""
    shown = {name: reconciling.list_handles(parts, tag, name, _bounds(parts, name)) for name in kinds}
    seen = [(name, handle, where) for name, answer in shown.items() for handle, where in sorted(answer.handles.items())]
    outcomes: list[BackendOutcome] = []
    for name, handle, where in seen:
        outcomes.append(reconciling.end_orphans(parts, tag, name, handle, where))
        told(len(seen), sum(outcome.confirmed for outcome in outcomes), sum(not o.confirmed for o in outcomes))
    doubt = "" if seen else _doubt(tag, frozenset().union(*(answer.other_tags for answer in shown.values())))
    return EmergencyReport(outcomes + _unasked(shown), _answered(shown), doubt)


def _bounds(parts: Parts, kind: str) -> list[BoundSlice]:
    """Every connection of a kind that is set."""
    bindings = [{"connection": name} for name in sorted(parts.settings.connections(kind))]
    return [BoundSlice(binding, parts.settings.place(kind, binding)) for binding in bindings]


def _unasked(shown: Mapping[str, BackendListing]) -> list[BackendOutcome]:
    return [
        BackendOutcome("", kind, UNASKED, error=why, place=place)
        for kind, answer in shown.items()
        for place, why in sorted(answer.unasked.items())
    ]


def _answered(shown: Mapping[str, BackendListing]) -> frozenset[str]:
    return frozenset().union(*(answer.asked for answer in shown.values()))


def _doubt(tag: str, others: frozenset[str]) -> str:
    # With nobody else there either, nothing is left, whatever the tag: said by a second run, for one.
    if not others:
        return ""
    listed = ", ".join(sorted(others))
    return f"No database user carries the tag {tag}, but users of these tags are there: {listed}."


def _outcomes(parts: Parts, ids: Sequence[str]) -> list[BackendOutcome]:
    with parts.database.transaction() as tx:
        leases = tx.scalars(select(Lease).where(Lease.id.in_(ids)).order_by(Lease.id)).all()
        return [
            BackendOutcome(
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
