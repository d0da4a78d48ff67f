"""Row filters in PostgreSQL, on real columns of every type: each value means exactly itself, or is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from broker.base import filter_text
from broker.base.errors import Invalid
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.views import look
from tests.credentials.filter_columns import (
    COMPARED,
    LABELS,
    SAME,
    Column,
    decimals,
    enum,
    moments,
    texts,
    whole,
    zoned,
)
from tests.credentials.filter_columns import days as days_of
from tests.support.servers import customer, debian

Session = psycopg.Connection[tuple[Any, ...]]
_FIRST = datetime(1, 1, 1)  # noqa: DTZ001  of columns without a zone
COLUMNS = {
    "n2": whole("smallint", -(2**15), 2**15 - 1),
    "n4": whole("integer", -(2**31), 2**31 - 1),
    "n8": whole("bigint", -(2**63), 2**63 - 1),
    "own": whole("filters.age", 0, 200),
    "cost": decimals("numeric(24,4)"),
    "r": Column("real", st.floats(width=32, allow_nan=False, allow_infinity=False), written=lambda x: f"{x:.9g}"),
    "d": Column("double precision", st.floats(allow_nan=False, allow_infinity=False), written=repr),
    "b": Column("boolean", st.booleans(), written=lambda value: str(value).lower(), operators=SAME),
    "t": texts("text"),
    "loose": texts("text COLLATE filters.loose"),
    "ci": texts("citext"),
    "v": texts("varchar(9)"),
    "own_c": texts('text COLLATE "C"'),
    "c": texts("char(9)", padded=True),
    "e": enum("filters.state"),
    "u": Column("uuid", st.uuids(), written=lambda value: str(value).upper(), operators=SAME),
    "by": Column("bytea", st.binary(max_size=4), written=lambda value: f"\\x{value.hex()}", operators=SAME),
    "da": days_of("date", _FIRST),
    "ts": moments("timestamp", _FIRST),
    "tz": zoned("timestamptz", datetime(9999, 1, 1)),  # noqa: DTZ001
    "ti": Column("time", st.times(), written=lambda at: at.isoformat()),
}


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """A session in which a table has a column of every type."""
    # Debian's, since that has ICU and citext, in which different texts can be equal.
    with customer(debian(), tls=False) as server, server.admin("postgres") as admin:
        admin.execute("CREATE EXTENSION citext")
        admin.execute("CREATE SCHEMA filters")
        admin.execute("CREATE DOMAIN filters.age AS integer CHECK (VALUE >= 0)")
        admin.execute(f"CREATE TYPE filters.state AS ENUM ({', '.join(repr_sql(label) for label in LABELS)})")
        admin.execute("CREATE COLLATION filters.loose (provider=icu, locale='und-u-ks-level1', deterministic=false)")
        columns = ", ".join(f"{name} {column.sql}" for name, column in COLUMNS.items())
        admin.execute(f"CREATE TABLE filters.every (id int, {columns}, span interval, net inet, j jsonb)")
        yield admin


def repr_sql(label: str) -> str:
    """A label as a literal."""
    return "'" + label.replace("'", "''") + "'"


def bound(rows: list[Any]) -> PostgresBinding:
    """A slice of that table."""
    place = {"connection": "data", "schema": "filters", "table": "every", "columns": ["id"]}
    return PostgresBinding.parse({**place, "rows": rows})


def shown(session: Session, rows: list[Any]) -> set[int]:
    """Which rows a slice with these filters shows."""
    binding = bound(rows)
    types = look(session, binding).types
    if not (literals := binding.literals(types)):
        return {row[0] for row in session.execute(binding.select(types)).fetchall()}
    # As a slice keeps them, in a table of their own.
    session.execute("DROP TABLE IF EXISTS filters.literals")
    columns = sql.SQL(", ").join(literal.column for literal in literals)
    values = sql.SQL(", ").join(literal.expression for literal in literals)
    session.execute(sql.SQL("CREATE TABLE filters.literals ({})").format(columns))
    session.execute(sql.SQL("INSERT INTO filters.literals VALUES ({})").format(values))
    query = binding.select(types, sql.Identifier("filters", "literals"))
    return {row[0] for row in session.execute(query).fetchall()}


def fill(session: Session, name: str, values: list[Any]) -> None:
    """The values, by their place in the list."""
    session.execute("TRUNCATE filters.every")
    for at, value in enumerate(values):
        session.execute(f"INSERT INTO filters.every (id, {name}) VALUES (%s, %s)", (at, value))


@pytest.mark.parametrize("name", COLUMNS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_filter_shows_exactly_the_matching_rows(session: Session, name: str, data: st.DataObject) -> None:
    column = COLUMNS[name]
    values = data.draw(st.lists(column.values, min_size=1, max_size=4))
    compared = data.draw(st.sampled_from(column.operators))
    text = column.written(values[0])
    fill(session, name, values)
    right = {at for at, value in enumerate(values) if COMPARED[compared](column.key(value), column.key(values[0]))}
    # As the command line sends it; as the portal prints it and the command line reads that; as it is kept and read.
    kept = bound([[name, compared, text]])
    typed = kept.with_types({name: look(session, kept).types[name].type}).canonical()["rows"]
    again = filter_text.read_condition(filter_text.write_condition(typed[0]))
    for row in ([name, compared, text], again, json.loads(json.dumps(typed[0]))):
        assert shown(session, [row]) == right, row
    assert shown(session, [[name, "in", [text, *map(column.written, values[1:])]]]) == set(range(len(values)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n4", ["x", "", "1 2", "0x10", "1_000", "\u0661", "2147483648", "1e400", "NaN", True, "true"]),
        ("n8", ["9223372036854775808", "1e19"]),
        ("cost", ["NaN", "Infinity", "1e999", "9" * 500, "1,5", True]),
        ("r", ["16777217", "0.123456789012", "1e39", "inf", "nan"]),
        ("d", ["9007199254740993", "0.12345678901234567890", "1e400"]),
        ("b", ["yes", "1", 1, "TRUE", "on"]),
        ("t", [0, 1.5, False, "a\x00", "\ud800", "x" * 1001]),
        ("c", ["x "]),
        ("e", ["gone", "NEW", ""]),
        ("u", ["0", "{6f9619ff-8b86-d011-b42d-00cf4fc964ff}", "6f9619ff8b86d011b42d00cf4fc964ff"]),
        ("by", ["abc", "\\x0", "\\000", "0xff"]),
        *(("da", [word]) for word in ("tomorrow", "now", "today", "yesterday", "epoch", "infinity", "-infinity")),
        ("da", ["2026-W01-1", "20260101", "2026-02-30", "0000-01-01", "2026-01-01 BC", "10000-01-01", 20260101]),
        ("ts", ["now", "2026-01-01T00:00:00Z", "2026-01-01 24:00", "2026-01-01 10", "2026-01-01 10:00:00.1234567"]),
        ("tz", ["now", "2026-01-01", "2026-01-01 10:00", "2026-01-01 10:00 Europe/Berlin", "2026-01-01 10:00+25:00"]),
        ("ti", ["allballs", "24:00", "10:00Z", "10"]),
        ("span", ["1 day"]),
        ("net", ["10.0.0.1"]),
        ("j", ["{}", "null"]),
    ],
)
def test_value_of_another_type_than_the_column_is_refused(session: Session, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(Invalid) as refused:
            shown(session, [[name, "=", value]])
        assert refused.value.field == "/binding/rows", value
        with pytest.raises(Invalid):
            shown(session, [[name, "in", [value]]])


@pytest.mark.parametrize("name", ["b", "e", "u", "by"])
def test_types_without_an_order_allow_only_equality(session: Session, name: str) -> None:
    with pytest.raises(Invalid, match="only"):
        shown(session, [[name, "<", str(uuid.uuid4())]])


def test_decimal_number_is_not_rounded(session: Session) -> None:
    fill(session, "cost", ["99999999999999.9950", "99999999999999.9960", "100000000000000"])
    assert shown(session, [["cost", "<=", "99999999999999.995"]]) == {0}


def test_columns_of_incomparable_types_allow_null_checks(session: Session) -> None:
    fill(session, "t", ["x"])
    assert shown(session, [["span", "is_null"]]) == {0}
    assert shown(session, [["j", "not_null"]]) == set()


def test_fraction_compared_with_an_integer_column_is_not_rounded(session: Session) -> None:
    fill(session, "n4", [1, 2])
    assert shown(session, [["n4", ">=", "1.5"]]) == {1}
    assert shown(session, [["n4", "=", "2.0"]]) == {1}


def test_filters_stored_by_earlier_releases_are_read(session: Session) -> None:
    fill(session, "cost", [1, 2])
    assert shown(session, [["cost", "<=", 1.5], ["cost", "in", [1, 2.0]]]) == {0}
