"""The view of a slice in PostgreSQL, and what stands behind it so that a guest learns of no row it does not show.

A guest's own conditions would meet the hidden rows wherever PostgreSQL plans them together with the row filter: the
plan, its estimates and errors tell of them. So a slice that hides rows is read by a function, which is planned by
itself. See docs/decisions/0130-rows-behind-a-function.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from psycopg import sql

from broker.base.errors import Invalid
from broker.kinds.names import short
from broker.kinds.postgres import settings_dependence
from broker.kinds.postgres.binding import JOINED, SELECTED, PostgresBinding, PostgresColumn
from broker.kinds.postgres.catalogue import estimate
from broker.kinds.postgres.sessions import Session, view_of

Types: TypeAlias = Mapping[str, PostgresColumn]
_READABLE = f"""
    SELECT c.oid::bigint, a.attname, c.relkind IN ('v', 'f') OR c.relrowsecurity,
           pg_catalog.format_type(a.atttypid, -1), {SELECTED}
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      {JOINED}
     WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
"""  # noqa: S608  of constants only
_PRIVATE = "SELECT 1 FROM pg_namespace WHERE nspname = 'slices_private' AND pg_has_role(nspowner, 'USAGE')"
# Parameters of PostgreSQL that a slice's function holds fast, so that no guest's `SET` changes what the slice shows.
# `settings_dependence` refuses what asks for those that no list can name, custom ones (`app.tenant`). Those left out
# change plans, limits or how a client is written to, and never a row or a value. First what is the same everywhere.
_FIXED = {
    # What a guest names first must not be what an owner's function finds.
    "search_path": "pg_catalog, pg_temp",
    # Otherwise the inner plan is printed, with estimates over all rows, and numbers of sorted rows.
    "client_min_messages": "error",
    "debug_print_raw_parse": "off",
    "debug_print_parse": "off",
    "debug_print_rewritten": "off",
    "debug_print_plan": "off",
    "trace_sort": "off",
    "row_security": "on",
    # Makes an index find only some of the rows.
    "gin_fuzzy_search_limit": "0",
    # Change how an owner's function in SQL is read.
    "transform_null_equals": "off",
    "standard_conforming_strings": "on",
    # Changes what quote_ident and format write.
    "quote_all_identifiers": "off",
}
# As the server has them for everybody when the slice is made: an owner's view was written for that.
_AS_THE_SERVER_HAS = (
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "timezone_abbreviations",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "default_text_search_config",
    "extra_float_digits",
    "bytea_output",
    "array_nulls",
    "xmlbinary",
    "xmloption",
)
PINNED = frozenset(_FIXED) | frozenset(_AS_THE_SERVER_HAS)
# Our own statements are written for these, whatever the server has.
_OURS = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'"


@dataclass(frozen=True, slots=True)
class SourceTable:
    """What the registrar may read of a table: the type of each column. `hides` rows by itself: a view, or policies."""

    oid: int
    types: Types
    hides: bool


def make(session: Session, slice_id: str, binding: PostgresBinding, group: sql.Identifier) -> int | None:
    """Make or replace a slice's view, and let a group read it. Returns how many rows PostgreSQL thinks it shows.

    Raises:
        Invalid: the table or a column does not exist, or the registrar may not read it.
        psycopg.Error: PostgreSQL refuses; a literal of another type, for one.
    """
    pinned = read_pinned(session)
    table = look(session, binding)
    if why := settings_dependence.find(session, {slice_id: (table.oid, binding.fast)})[slice_id].why:
        raise Invalid(why, field="/binding/table", advice=settings_dependence.ADVICE)
    drop(session, slice_id)
    view = sql.Identifier(*view_of(slice_id).split("."))
    literals, function = _names_in("slices_private" if _has_private(session) else "slices", slice_id)
    _keep_literals(session, literals, binding, table.types)
    query = binding.select(table.types, literals)
    if (binding.rows or table.hides) and not binding.fast:
        _make_function(session, function, binding, table.types, query, pinned)
        session.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(function, group))
        query = sql.SQL("SELECT * FROM {}()").format(function)
    options = sql.SQL("security_barrier = true, security_invoker = false")
    session.execute(sql.SQL("CREATE VIEW {} WITH ({}) AS {}").format(view, options, query))
    session.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(view, group))
    return estimate(session, binding.select(table.types), binding.schema, binding.table)


def drop(session: Session, slice_id: str) -> None:
    """Take a slice's view away with all that stands behind it; twice is fine."""
    session.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(*view_of(slice_id).split("."))))
    for schema in ("slices", "slices_private") if _has_private(session) else ("slices",):
        literals, function = _names_in(schema, slice_id)
        session.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(function))
        session.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(literals))


def look(session: Session, binding: PostgresBinding) -> SourceTable:
    """What a login may read of a binding's table: see `TableBinding.of_readable`."""
    # The view reads as the registrar, so what counts is what the registrar may select, column by column.
    found = session.execute(_READABLE, (binding.schema, binding.table)).fetchall()
    types = binding.of_readable({str(name): PostgresColumn.read(*of) for _, name, _, *of in found})
    return SourceTable(int(found[0][0]), types, any(hides for _, _, hides, *_ in found))


def _keep_literals(session: Session, table: sql.Identifier, binding: PostgresBinding, types: Types) -> None:
    literals = binding.literals(types)
    if not literals:
        return
    columns = sql.SQL(", ").join(literal.column for literal in literals)
    values = sql.SQL(", ").join(literal.expression for literal in literals)
    # Created by the registrar and granted to nobody.
    session.execute(sql.SQL("CREATE TABLE {} ({})").format(table, columns))
    session.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(table, values))


def _make_function(
    session: Session,
    function: sql.Identifier,
    binding: PostgresBinding,
    types: Types,
    query: sql.Composed,
    pinned: dict[str, str],
) -> None:
    returned = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(types[column].type.name)) for column in binding.columns
    )
    held = sql.SQL(" ").join(
        sql.SQL("SET {} TO {}").format(
            sql.Identifier(name), sql.SQL("pg_catalog, pg_temp") if name == "search_path" else sql.Literal(value)
        )
        for name, value in pinned.items()
    )
    # As SECURITY DEFINER it is never merged into the query that calls it. BEGIN ATOMIC binds it to the very table and
    # columns that are there now, as a view is bound, and not to whatever has their names later. No ROWS: everybody
    # could read that estimate. SET: what it shows is the same whatever a guest has set.
    session.execute(
        sql.SQL(
            "CREATE FUNCTION {}() RETURNS TABLE ({}) LANGUAGE sql STABLE SECURITY DEFINER {} BEGIN ATOMIC {}; END"
        ).format(function, returned, held, query)
    )
    session.execute(sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(function))


def _names_in(schema: str, slice_id: str) -> tuple[sql.Identifier, sql.Identifier]:
    return sql.Identifier(schema, f"f_{short(slice_id)}"), sql.Identifier(schema, f"r_{short(slice_id)}")


def _has_private(session: Session) -> bool:
    """Whether the schema that guests cannot look into is there: databases connected before have none."""
    return session.execute(_PRIVATE).fetchone() is not None


def read_pinned(session: Session) -> dict[str, str]:
    """The parameters to hold fast, each with its value, of those this server knows.

    The session must have begun without any of its own. It is given ours afterwards, until its transaction ends.
    """
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)"
    found = session.execute(query, (sorted(PINNED),)).fetchall()
    session.execute(_OURS)
    return {str(name): _FIXED.get(name, str(value)) for name, value in sorted(found)}
