"""Parameters of PostgreSQL that a slice's function holds fast, so that no guest's `SET` changes what the slice shows.

Those that no list can name are custom ones (`app.tenant`): `broker.kinds.postgres.settings_dependence` refuses what
asks for them. Those left out change plans, limits or how a client is written to, and never a row or a value.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

Session = psycopg.Connection[tuple[Any, ...]]
# The same everywhere.
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


def read(session: Session) -> dict[str, str]:
    """The parameters to hold fast, each with its value, of those this server knows.

    The session must have begun without any of its own. It is given ours afterwards, until its transaction ends.
    """
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)"
    found = session.execute(query, (sorted(PINNED),)).fetchall()
    session.execute(_OURS)
    return {str(name): _FIXED.get(name, str(value)) for name, value in sorted(found)}


def clauses(pinned: dict[str, str]) -> sql.Composable:
    """The parameters as `CREATE FUNCTION` takes them."""
    return sql.SQL(" ").join(
        sql.SQL("SET {} TO {}").format(
            sql.Identifier(name), sql.SQL("pg_catalog, pg_temp") if name == "search_path" else sql.Literal(value)
        )
        for name, value in pinned.items()
    )
