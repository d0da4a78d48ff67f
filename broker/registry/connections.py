"""Everything that is connected and that slices can lie in, of every kind; whether it answers; what it holds, by name.

Web replicas hold no login there: nothing is asked when a page is shown. The worker reads a catalogue with the
registrar's login, and what it finds is kept until it is asked to look again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction, clock, notify
from broker.base.errors import Invalid
from broker.base.paging import DEFAULT_LIMIT, Page
from broker.base.settings import Settings
from broker.identity.caller import Caller
from broker.identity.permissions import missing, require_admin
from broker.kinds.discovery import kinds, the_kind
from broker.kinds.values import BROKER, Connects
from broker.log import audit
from broker.models import Catalogue, CatalogueTable, Chore, Dataset, Slice, UnreachablePlace
from broker.registry.slices import REGISTERING_CHANNEL
from broker.runtime.chores import RECONCILE, RECONCILE_SECONDS

_ROUND = timedelta(seconds=RECONCILE_SECONDS)
Place = tuple[str, str]
# Catalogues go by the connection's name alone, so one kind has them.
CATALOGUE_KIND = the_kind(lambda kind: kind.has_catalogue)
# Whoever asks again sooner is shown what is being read already.
_AGAIN = timedelta(seconds=2)


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


def catalogue_of(tx: Transaction, caller: Caller, settings: Settings, name: str) -> Catalogue | None:
    """The catalogue of a connected database, if one was ever asked for. For admins.

    Raises:
        NotFound: there is none of that name.
    """
    require_admin(caller)
    if name not in settings.connections(CATALOGUE_KIND.name):
        raise missing("connection")
    return tx.get(Catalogue, name)


def read_catalogue(tx: Transaction, caller: Caller, settings: Settings, name: str, now: datetime) -> Catalogue:
    """Have the worker read a connection's catalogue, again if it did before. For admins."""
    found = catalogue_of(tx, caller, settings, name)
    if found is not None and found.state == "waiting" and found.asked_at > now - _AGAIN:
        return found
    values = {"state": "waiting", "detail": "", "asked_by": caller.id, "asked_at": now}
    entry = insert(Catalogue).values({"connection": name, "tables": 0, "cut": False, **values})
    again = entry.on_conflict_do_update(index_elements=["connection"], set_=values).returning(Catalogue)
    made = tx.scalars(again, execution_options={"populate_existing": True}).one()
    audit.record(tx, "catalogue.asked", actor=caller.subject, subject=name, now=now)
    notify(tx, REGISTERING_CHANNEL, name)
    return made


def catalogue_tables(
    tx: Transaction, caller: Caller, name: str, *, part: str = "", after: str = "", limit: int = DEFAULT_LIMIT
) -> Page[CatalogueTable]:
    """Tables and views of a connection by schema and name, those whose name has `part` in it. For admins.

    Args:
        after: the cursor of the page before, or "".

    Raises:
        Invalid: `after` is not where a page ended.
    """
    require_admin(caller)
    schema, dot, table = after.partition(".")
    if "\x00" in part:
        raise Invalid("A name cannot contain such a character.", field="/query/part")
    if after and (not dot or "\x00" in after):
        raise Invalid("This cursor is not valid.", field="/query/after", advice="Start without a cursor.")
    query = select(CatalogueTable).where(CatalogueTable.connection == name)
    if part:
        # Without an index, among the two thousand that a connection has at most.
        query = query.where((CatalogueTable.schema + "." + CatalogueTable.name).contains(part.lower(), autoescape=True))
    if after:
        query = query.where(tuple_(CatalogueTable.schema, CatalogueTable.name) > tuple_(schema, table))
    rows = list(tx.scalars(query.order_by(CatalogueTable.schema, CatalogueTable.name).limit(limit + 1)))
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(items=rows[:limit], next_cursor=f"{last.schema}.{last.name}" if last else None)


def catalogue_table(tx: Transaction, caller: Caller, name: str, schema: str, table_name: str) -> CatalogueTable:
    """One table. For admins, and for owners of a dataset with a slice made of it.

    Raises:
        NotFound: there is none that the caller may see.
    """
    found = None
    if "\x00" not in f"{name}{schema}{table_name}" and (caller.is_admin or _owns(tx, caller, name, schema, table_name)):
        found = tx.get(CatalogueTable, (name, schema, table_name))
    if found is None:
        raise missing("table")
    return found


def _owns(tx: Transaction, caller: Caller, name: str, schema: str, table_name: str) -> bool:
    if caller.kind != "person" or caller.vendor_id is not None:
        return False
    place = {"connection": name, "schema": schema, "table": table_name}
    query = select(Slice.id).join(Dataset).where(Dataset.owner_id == caller.id, Slice.state != "retired")
    return tx.scalars(query.where(Slice.binding.contains(place)).limit(1)).first() is not None
