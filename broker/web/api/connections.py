"""`/connections`: what is connected, and what databases hold by name, for making slices. Never a value."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from broker.base.paging import DEFAULT_LIMIT, MOST, Page
from broker.models import CatalogueTable
from broker.registry import connections
from broker.registry import personal_columns as personal
from broker.registry.connections import Connection
from broker.web.api.common import At, Shown, verb

router = APIRouter(prefix="/connections", tags=["connections"])


class ConnectionShown(Shown):
    """A connection: what it leads `to`, and what a slice is called there.

    `healthy`: whether it answered when a worker last asked which credentials it holds; null where none asks. Of
    databases whose tables can be chosen by name only: `state` tells how far reading them has come; `unread` if nobody
    asked yet.
    """

    name: str
    kind: str
    to: str
    slice_is: str
    healthy: bool | None
    silent_since: datetime | None
    silent_why: str | None
    state: str | None
    detail: str
    read_at: datetime | None
    tables: int | None
    cut: bool


class ColumnShown(Shown):
    """A column. `personal` is a guess from names, types and statistics, `why` what it rests on."""

    name: str
    type: str
    usable: bool
    distinct: float | None
    width: int | None
    personal: str | None
    why: str | None


class TableShown(Shown):
    """A table or view; `rows` is PostgreSQL's estimate, null where it does not know."""

    schema_name: str
    name: str
    rows: int | None
    usable: bool
    notes: list[str]
    columns: list[ColumnShown]


class TableFull(TableShown):
    """One table; `guessed` says how columns are judged."""

    guessed: str


class Tables(BaseModel):
    """A page of tables by name; pass `next_cursor` as `cursor` for more. `guessed` says how columns are judged."""

    items: list[TableShown]
    next_cursor: str | None
    guessed: str


@verb(router, "GET", "", Page[ConnectionShown])
def list_connections(
    at: At, kind: Annotated[str | None, Query(max_length=64, description="Only those of one kind.")] = None
) -> Page[ConnectionShown]:
    """What is connected, of every kind, by kind and name. For admins."""
    found = connections.connections(at.tx, at.caller, at.parts.settings, kind)
    return Page(items=[_connection(item) for item in found], next_cursor=None)


@verb(router, "POST", "/{connection}/read", ConnectionShown, status=202)
def read_connection(at: At, connection: str) -> ConnectionShown:
    """Have the worker read what a database holds, by name; look at its `state` for when it has. For admins."""
    connections.read_catalogue(at.tx, at.caller, at.parts.settings, connection, at.now)
    found = connections.connections(at.tx, at.caller, at.parts.settings, connections.CATALOGUE_KIND.name)
    return next(_connection(item) for item in found if item.name == connection)


@verb(router, "GET", "/{connection}/tables", Tables)
def list_tables(
    at: At,
    connection: str,
    part: Annotated[str, Query(max_length=63, description="What is in schema.table.")] = "",
    cursor: Annotated[str | None, Query(max_length=130, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most items on a page.")] = DEFAULT_LIMIT,
) -> Tables:
    """Tables and views the registrar may read, as they were when the database was last read. For admins."""
    connections.catalogue_of(at.tx, at.caller, at.parts.settings, connection)
    page = connections.catalogue_tables(at.tx, at.caller, connection, part=part, after=cursor or "", limit=limit)
    return Tables(items=[_table(item) for item in page.items], next_cursor=page.next_cursor, guessed=personal.HOW)


@verb(router, "GET", "/{connection}/tables/{schema_name}/{table}", TableFull)
def show_table(at: At, connection: str, schema_name: str, table: str) -> TableFull:
    """One table. For admins, and for owners of a dataset with a slice made of it."""
    found = _table(connections.catalogue_table(at.tx, at.caller, connection, schema_name, table))
    return TableFull(**found.model_dump(), guessed=personal.HOW)


def _connection(found: Connection) -> ConnectionShown:
    read, silent = found.catalogue, found.silent
    is_read = found.kind == connections.CATALOGUE_KIND.name
    return ConnectionShown.of(
        found,
        to=found.about.to,
        slice_is=found.about.slice_is,
        silent_since=silent.since if silent else None,
        silent_why=silent.why if silent else None,
        state=read.state if read else "unread" if is_read else None,
        detail=read.detail if read else "",
        read_at=read.read_at if read else None,
        tables=read.tables if read else 0 if is_read else None,
        cut=read.cut if read else False,
    )


def _table(found: CatalogueTable) -> TableShown:
    columns = []
    for column in found.columns:
        guess = personal.guess(column)
        what, why = (guess.what, guess.why) if guess else (None, None)
        columns.append(ColumnShown(**column, personal=what, why=why))
    return TableShown.of(found, schema_name=found.schema, columns=columns)
