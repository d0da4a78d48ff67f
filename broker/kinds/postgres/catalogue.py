"""What the registrar may read in a connected database, from PostgreSQL's catalogues and statistics. Never a value.

Of the statistics only shares and widths are asked for: `pg_stats` also holds values, and none of its columns with
values is named here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from psycopg import sql

from broker.keystore.vault import Vault
from broker.kinds.postgres.binding import JOINED, SELECTED, PostgresBinding, PostgresColumn
from broker.kinds.postgres.sessions import Session, answering, registrar_session
from broker.kinds.tables.filter_values import ColumnType
from broker.kinds.values import FoundTable

MOST_TABLES = 2000
# A table has up to 1,600 columns: this many are a catalogue of a few thousand ordinary tables.
MOST_COLUMNS = 50_000
_MOST_LABELS = 200

_READABLE = f"""
  SELECT n.nspname, c.relname, c.relkind, c.reltuples, c.relrowsecurity, a.attname,
         pg_catalog.format_type(a.atttypid, a.atttypmod), s.n_distinct, s.avg_width, {SELECTED}
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_catalog.pg_stats s
      ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
     AND s.inherited = (c.relkind = 'p')
    {JOINED}
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
     AND a.attnum > 0 AND NOT a.attisdropped
     AND NOT starts_with(n.nspname, 'pg_')
     AND n.nspname NOT IN ('information_schema', 'slices', 'slices_private', 'guestkey_ops')
     AND has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
   ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C", a.attnum
   LIMIT %s
"""  # noqa: S608  of constants only
_NEVER_ANALYSED = """SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'm') AND c.reltuples < 0"""
_KINDS = {"v": "view", "m": "materialized view", "f": "foreign table", "p": "partitioned"}


def read(vault: Vault, connection_name: str) -> tuple[list[FoundTable], bool]:
    """The tables by schema and name, and whether there are more than are taken in."""
    failed = answering("catalogue.not_read", connection=connection_name)
    with failed, registrar_session(vault, connection_name) as session:
        rows = session.execute(_READABLE, (MOST_COLUMNS + 1,)).fetchall()
    tables = list(_tables(rows[:MOST_COLUMNS]))
    return tables[:MOST_TABLES], len(rows) > MOST_COLUMNS or len(tables) > MOST_TABLES


def _tables(rows: list[tuple[Any, ...]]) -> Iterator[FoundTable]:
    for (schema, name), grouped in groupby(rows, key=lambda row: (row[0], row[1])):
        columns = list(grouped)
        _, _, kind, tuples, row_security = columns[0][:5]
        # -1 until the table has been analysed for the first time; views are never counted.
        count = round(tuples) if tuples >= 0 and kind not in ("v", "f") else None
        notes = [_KINDS[kind]] if kind in _KINDS else []
        yield FoundTable(
            schema=schema,
            name=name,
            rows=count,
            usable=PostgresBinding.nameable(schema) and PostgresBinding.nameable(name),
            notes=[*notes, *(["row security"] if row_security else [])],
            columns=[_column(row, count) for row in columns],
        )


def _column(row: tuple[Any, ...], count: int | None) -> dict[str, Any]:
    name, type_, distinct, width, base, labels, *_ = row[5:]
    return {
        "name": name,
        "type": type_,
        "usable": PostgresBinding.nameable(name),
        "distinct": _share(distinct, count),
        "width": width,
        # What a filter's value is read as; the labels of an enumeration are part of its type.
        "base": base,
        "labels": labels if labels and len(labels) <= _MOST_LABELS else None,
    }


def types_of(columns: Sequence[Mapping[str, Any]]) -> dict[str, ColumnType]:
    """The types of a table's columns, as far as filters can be judged by them; those read long ago lack some."""
    found = {}
    for column in columns:
        base, labels = column.get("base"), column.get("labels")
        if base is not None and (base != "enum" or labels):
            found[column["name"]] = PostgresColumn.read(column["type"], base, labels).type
    return found


def _share(distinct: float | None, count: int | None) -> float | None:
    """`n_distinct` as a share of the rows: negative it is one already, positive a number of values, 0 unknown."""
    if not distinct:
        return None
    if distinct < 0:
        return round(-distinct, 3)
    return round(min(1.0, distinct / count), 3) if count else None


def estimate(session: Session, query: sql.Composable, schema: str, table: str) -> int | None:
    """How many rows the planner thinks a query on a table shows; None if it never analysed the table. Reads no row."""
    if session.execute(_NEVER_ANALYSED, (schema, table)).fetchone() is not None:
        return None
    row = session.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(query)).fetchone()
    plan: Any = row[0] if row else None
    rows = plan[0].get("Plan", {}).get("Plan Rows") if isinstance(plan, list) and plan else None
    return int(rows) if isinstance(rows, int | float) and not isinstance(rows, bool) else None
