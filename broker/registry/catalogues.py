"""What connected databases hold, by name: asking the worker to read it, and who may see what it found.

Web replicas hold no login of such a database, so nothing is read when a page is shown: the worker reads with the
registrar's login, and what it finds is kept until it is asked to look again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction, notify
from broker.base.errors import Invalid
from broker.base.settings import Settings
from broker.identity.caller import Caller
from broker.identity.permissions import missing, require_admin
from broker.kinds.discovery import the_kind
from broker.log import audit
from broker.models import Catalogue, CatalogueTable, Dataset, Slice
from broker.registry.slices import REGISTERING_CHANNEL

PAGE = 50
# Catalogues go by the connection's name alone, so one kind has them.
KIND = the_kind(lambda kind: kind.has_catalogue)
# Whoever asks again sooner is shown what is being read already.
_AGAIN = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class CatalogueConnection:
    """A connected database, and its catalogue if one was ever asked for."""

    name: str
    catalogue: Catalogue | None


@dataclass(frozen=True, slots=True)
class CatalogueTables:
    """A page of tables by name; `after` is where the next one begins, None on the last."""

    items: Sequence[CatalogueTable]
    after: str | None


def connection(tx: Transaction, caller: Caller, settings: Settings, name: str) -> CatalogueConnection:
    """A connected database. For admins.

    Raises:
        NotFound: there is none of that name.
    """
    require_admin(caller)
    if name not in settings.connections(KIND.name):
        raise missing("connection")
    return CatalogueConnection(name, tx.get(Catalogue, name))


def ask(tx: Transaction, caller: Caller, settings: Settings, name: str, now: datetime) -> Catalogue:
    """Have the worker read a connection's catalogue, again if it did before. For admins."""
    found = connection(tx, caller, settings, name)
    if found.catalogue is not None and found.catalogue.state == "waiting" and found.catalogue.asked_at > now - _AGAIN:
        return found.catalogue
    values = {"state": "waiting", "detail": "", "asked_by": caller.id, "asked_at": now}
    entry = insert(Catalogue).values({"connection": name, "tables": 0, "cut": False, **values})
    again = entry.on_conflict_do_update(index_elements=["connection"], set_=values).returning(Catalogue)
    made = tx.scalars(again, execution_options={"populate_existing": True}).one()
    audit.record(tx, "catalogue.asked", actor=caller.subject, subject=name, now=now)
    notify(tx, REGISTERING_CHANNEL, name)
    return made


def tables(
    tx: Transaction, caller: Caller, name: str, *, part: str = "", after: str = "", limit: int = PAGE
) -> CatalogueTables:
    """Tables and views of a connection by schema and name, those whose name has `part` in it. For admins.

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
    return CatalogueTables(rows[:limit], f"{last.schema}.{last.name}" if last else None)


def table(tx: Transaction, caller: Caller, name: str, schema: str, table_name: str) -> CatalogueTable:
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
