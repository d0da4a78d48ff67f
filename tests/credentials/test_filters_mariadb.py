"""Row filters in MariaDB, on real columns of every type: each value means exactly itself, or is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeAlias

import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymysql.cursors import Cursor

from broker.base import filter_text
from broker.base.errors import Invalid
from broker.base.ids import new_id
from broker.keystore.vault import Vault
from broker.kinds.mariadb.binding import MariadbBinding
from broker.kinds.mariadb.slices import register, types_of, unregister, view_of
from broker.runtime.parts import vault_of
from tests.credentials.filter_columns import (
    COMPARED,
    LABELS,
    Column,
    days,
    decimals,
    enum,
    moments,
    texts,
    whole,
    zoned,
)
from tests.support.mariadb import WARD, Mariadb
from tests.support.world import World

Session: TypeAlias = "pymysql.Connection[Cursor]"
_FIRST = datetime(1000, 1, 1)  # noqa: DTZ001  of columns without a zone
_LABELS = ", ".join("'" + label.replace("'", "''") + "'" for label in LABELS)
_FLOATS = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)
COLUMNS = {
    "n1": whole("tinyint", -128, 127),
    "n4": whole("int unsigned", 0, 2**32 - 1),
    "n8": whole("bigint", -(2**63), 2**63 - 1),
    "cost": decimals("decimal(24,4)"),
    "r": Column("float", _FLOATS, written=lambda x: f"{x:.9g}"),
    "d": Column("double", st.floats(-1e300, 1e300, allow_subnormal=False), written=repr),
    "y": whole("year", 1901, 2155),
    "v": texts("varchar(9) CHARACTER SET utf8mb4"),
    "c": texts("char(9) CHARACTER SET utf8mb4", padded=True),
    "t": texts("text CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"),
    "e": enum(f"enum({_LABELS})"),
    "da": days("date", _FIRST),
    "dt": moments("datetime(6)", _FIRST),
    "ts": zoned("timestamp(6) NULL", datetime(2038, 1, 1)),  # noqa: DTZ001
}


@pytest.fixture(scope="module")
def session(ward: Mariadb) -> Iterator[Session]:
    """An administrator's session on a server where a table has a column of every type."""
    columns = ", ".join(f"{name} {column.sql}" for name, column in COLUMNS.items())
    with ward.admin() as admin:
        ask(admin, "SET time_zone = '+00:00'")
        ask(admin, f"CREATE OR REPLACE TABLE clinic.every (id int, {columns}, tm time, bl blob, js json, st set('a'))")
        yield admin
        ask(admin, "DROP TABLE clinic.every")


@pytest.fixture
def setup(world: World) -> Vault:
    """OpenBao as the identity that registers slices."""
    return vault_of(world.settings, "setup")


def ask(session: Session, statement: str, *given: object) -> tuple[tuple[Any, ...], ...]:
    """One statement and its rows."""
    with session.cursor() as cursor:
        cursor.execute(statement, given or None)
        return tuple(cursor.fetchall())


def bound(rows: list[Any]) -> MariadbBinding:
    """A slice of that table."""
    return MariadbBinding.parse({**WARD, "table": "every", "columns": ["id"], "rows": rows})


def shown(session: Session, rows: list[Any]) -> set[int]:
    """Which rows a slice with these filters shows."""
    binding = bound(rows)
    with session.cursor() as cursor:
        cursor.execute(*binding.select(types_of(cursor, binding)))
        return {row[0] for row in cursor.fetchall()}


def fill(session: Session, name: str, values: list[Any]) -> None:
    """The values, by their place in the list."""
    ask(session, "DELETE FROM clinic.every")
    for at, value in enumerate(values):
        ask(session, f"INSERT INTO clinic.every (id, {name}) VALUES (%s, %s)", at, value)


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
    kept = bound([[name, compared, text]])
    with session.cursor() as cursor:
        typed = kept.with_types({name: types_of(cursor, kept)[name].type}).canonical()["rows"]
    again = filter_text.read_condition(filter_text.write_condition(typed[0]))
    for row in ([name, compared, text], again, json.loads(json.dumps(typed[0]))):
        assert shown(session, [row]) == right, row
    assert shown(session, [[name, "in", [text, *map(column.written, values[1:])]]]) == set(range(len(values)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n1", ["128", "x", "", True]),
        ("n4", ["-1", "4294967296"]),
        ("cost", ["0." + "1" * 39, "9" * 66, "NaN", "x"]),
        ("r", ["16777217", "1e39"]),
        ("d", ["9007199254740993", "1e400"]),
        ("y", ["70", "1900", "2156"]),
        ("v", [0, True, "a\x00"]),
        ("c", ["x "]),
        ("e", ["gone", "NEW", 1]),
        ("da", ["2026-W01-1", "tomorrow", "0000-00-00", "2026-02-30", "20260101", "2026-01-01T00:00"]),
        ("dt", ["2026-01-01T00:00Z", "now()", "2026-01-01 24:00"]),
        ("ts", ["2026-01-01", "2026-01-01 10:00"]),
        *(("tm", ["10:00"]), ("bl", ["x"]), ("st", ["a"])),
    ],
)
def test_value_of_another_type_than_the_column_is_refused(
    session: Session, setup: Vault, name: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(Invalid) as refused:
            register(setup, new_id("sl"), bound([[name, "=", value]]).canonical())
        assert refused.value.field == "/binding/rows", value


def test_decimal_number_is_not_rounded(session: Session) -> None:
    fill(session, "cost", ["99999999999999.9950", "99999999999999.9960", "100000000000000"])
    assert shown(session, [["cost", "<=", "99999999999999.995"]]) == {0}


@pytest.mark.parametrize(
    ("name", "values", "row", "setting"),
    [
        ("c", ["Ulm", "Bonn"], ["c", "<>", "Ulm"], "sql_mode = 'PAD_CHAR_TO_FULL_LENGTH'"),
        ("ts", ["2026-01-01 00:00", "2026-01-02 00:00"], ["ts", ">", "2026-01-01T12:00Z"], "time_zone = '+13:00'"),
        ("v", ["a\\b", "ab"], ["v", "<>", "a\\b"], "sql_mode = 'NO_BACKSLASH_ESCAPES'"),
        ("v", ["Ulm", "Bonn"], ["v", "<>", "Ulm"], "sql_mode = 'ANSI_QUOTES'"),
        ("d", [0.5, 1.5], ["d", ">", "1"], "div_precision_increment = 0"),
    ],
)
def test_session_settings_do_not_change_the_filtered_rows(
    ward: Mariadb, session: Session, setup: Vault, name: str, values: list[Any], row: list[Any], setting: str
) -> None:
    fill(session, name, values)
    slice_id, kept = new_id("sl"), bound([row]).canonical()
    register(setup, slice_id, kept)
    try:
        with ward.admin() as guest:
            for set_ in ("time_zone = '+00:00'", setting):
                ask(guest, f"SET SESSION {set_}")
                assert ask(guest, f"SELECT id FROM {view_of(slice_id)}") == ((1,),), set_
    finally:
        unregister(setup, slice_id, kept)


def test_filter_with_characters_outside_the_columns_charset_is_refused(ward: Mariadb, setup: Vault) -> None:
    ward.ask("CREATE OR REPLACE TABLE clinic.western (id int, name varchar(20)) CHARACTER SET latin1")
    ward.ask("INSERT INTO clinic.western VALUES (1, 'acme')")
    place = {**WARD, "table": "western", "columns": ["id"], "rows": [["name", "=", "Жук"]]}
    with pytest.raises(Invalid) as refused:
        register(setup, new_id("sl"), place)
    assert refused.value.field == "/binding/rows"


def test_filter_literal_with_a_mariadb_warning_is_refused(
    session: Session, setup: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever our own reading of literals lets pass by mistake."""
    warned = ("SELECT `id` FROM `clinic`.`every` WHERE `da` >= %s", ["2026-W01-1"])
    monkeypatch.setattr(MariadbBinding, "select", lambda *_, **__: warned)
    fill(session, "da", ["2025-01-01"])
    assert len(ask(session, warned[0], "2026-W01-1")) == 1, "the trap is real: every row is shown"
    with pytest.raises(Invalid) as refused:
        register(setup, new_id("sl"), bound([["da", ">=", "2026-01-01"]]).canonical())
    assert refused.value.field == "/binding/rows"
