"""Everything that is connected and that slices can lie in, of every kind; and whether it answers, if workers know that.

Web replicas hold no login there: nothing is asked when a list is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, select

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.settings import Settings
from broker.identity.caller import Caller
from broker.identity.permissions import require_admin
from broker.kinds.discovery import kinds
from broker.kinds.values import BROKER, Connects
from broker.models import Catalogue, Chore, Slice, UnreachablePlace
from broker.runtime.chores import RECONCILE, RECONCILE_SECONDS

_ROUND = timedelta(seconds=RECONCILE_SECONDS)
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection. `catalogue` is what it holds by name, of databases that were read.

    `heard`: workers asked lately which credentials it holds, as they do each minute. `silent`: it did not answer.
    """

    kind: str
    name: str
    about: Connects
    catalogue: Catalogue | None
    silent: UnreachablePlace | None
    heard: bool

    @property
    def healthy(self) -> bool | None:
        """Whether it answered when last asked; None where nobody asks."""
        if self.silent is not None:
            return False
        return True if self.heard else None


def connections(tx: Transaction, caller: Caller, settings: Settings, kind: str | None = None) -> list[Connection]:
    """What is connected, by kind and name; of one kind, if one is named. For admins.

    Raises:
        Invalid: there is no kind of that name.
    """
    require_admin(caller)
    if kind is not None and kind not in kinds:
        raise Invalid("There is no such kind of credential.", field="/kind", advice="See: guestkey kind list")
    places = [(of, name) for of in kinds if kind in (None, of) for name in sorted(settings.connections(of))]
    catalogues = {found.connection: found for found in tx.scalars(select(Catalogue))}
    silent = {(found.kind, found.place): found for found in tx.scalars(select(UnreachablePlace))}
    heard = _heard(tx, [place for place in places if (place[0], BROKER) not in silent], clock(tx))
    return [
        Connection(
            of,
            name,
            about,
            catalogues.get(name) if kinds[of].has_catalogue else None,
            silent.get((of, name)),
            (of, name) in heard,
        )
        for of, name in places
        if (about := kinds[of].connects) is not None
    ]


def _heard(tx: Transaction, places: Sequence[Place], now: datetime) -> set[Place]:
    """Those that workers asked in their last round: where it was lately, and a slice lay there by then."""
    asked = [place for place in places if (about := kinds[place[0]].connects) is not None and about.asked]
    due = tx.scalars(select(Chore.due_at).where(Chore.name == RECONCILE)).one_or_none()
    if not asked or due is None or due < now - _ROUND:
        return set()
    registered = (Slice.state != "registering", Slice.created_at < due - _ROUND)
    there = [
        exists().where(Slice.kind == of, Slice.binding["connection"].astext == name, *registered) for of, name in asked
    ]
    found = tx.execute(select(*(one.label(f"place_{number}") for number, one in enumerate(there)))).one()
    return {place for place, lies in zip(asked, found, strict=True) if lies}
