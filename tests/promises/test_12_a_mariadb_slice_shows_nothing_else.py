"""Promise 12 in MariaDB: plans, counters, errors and definitions tell a guest of nothing outside its slice."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pymysql
import pytest

from broker.kinds.mariadb.slices import view_of
from broker.leases.issuing import Handed
from tests.support.data import ROWS
from tests.support.mariadb import WARD, Mariadb, Session, ask, ward_guest
from tests.support.world import World

SECRET = "Lovelace & Sons"
ORDERS = WARD | {"table": "orders_12", "columns": ["id", "note"], "rows": [["customer", "=", SECRET]]}
HIDDEN = range(101, 181, 2)
ABSENT = range(ROWS + 1, ROWS + 41)
CONDITIONS = (
    "id = {id}",
    "id IN ({id})",
    "id BETWEEN {id} AND {id}",
    "1/(id-{id}) IS NOT NULL AND id = {id}",
    "id = {id} AND CAST(note AS DOUBLE) > 0",
    "id = {id} AND extractvalue(1, concat(0x7e, note))",
    "note = 'note {id}'",
)
QUESTIONS = (
    "SELECT * FROM {view} WHERE {condition}",
    "EXPLAIN SELECT * FROM {view} WHERE {condition}",
    "EXPLAIN EXTENDED SELECT * FROM {view} WHERE {condition}",
    "EXPLAIN FORMAT=JSON SELECT * FROM {view} WHERE {condition}",
    "ANALYZE FORMAT=JSON SELECT * FROM {view} WHERE {condition}",
    "ANALYZE SELECT * FROM {view} WHERE {condition}",
)
# What a session is told of its last statement.
AFTERWARDS = (
    "SHOW WARNINGS",
    "SELECT * FROM information_schema.optimizer_trace",
    "SHOW SESSION STATUS LIKE 'Handler_read%'",
    "SHOW SESSION STATUS LIKE 'Rows_read'",
    "SHOW SESSION STATUS LIKE 'Last_query_cost'",
    "SHOW SESSION STATUS LIKE 'Innodb_rows_read'",
)


@pytest.fixture
def handed(world: World, ward: Mariadb) -> Handed:
    """A credential for the slice of one customer."""
    ward.ask("CREATE TABLE IF NOT EXISTS clinic.orders_12 (id int PRIMARY KEY, customer varchar(40), note varchar(40))")
    ward.ask(
        "REPLACE INTO clinic.orders_12 SELECT seq, IF(MOD(seq, 2) = 0, %s, 'Byron'), CONCAT('note ', seq)"
        f" FROM clinic.seq_1_to_{ROWS}",
        SECRET,
    )
    signed, dataset = ward_guest(world, ORDERS)
    return world.issue(signed, dataset)


@pytest.fixture
def guest(ward: Mariadb, handed: Handed) -> Iterator[Session]:
    """A session with it."""
    assert handed.values is not None
    with ward.guest(handed.values) as session:
        yield session


def answers(session: Session, query: str, id_: int) -> str:
    """All that MariaDB says to a query about one id, the id itself and times left out."""
    try:
        said: list[object] = [ask(session, query.format(id=id_))]
    except pymysql.Error as error:
        said = [error.args]
    text = re.sub(r'"r_\w*time_ms": [\d.e-]+', "TIME", str(said))
    return re.sub(rf"(?<![\d.]){id_}(?!\d)", "ID", text)


@pytest.mark.parametrize("question", QUESTIONS)
def test_hidden_ids_behave_like_absent_ones(ward: Mariadb, handed: Handed, question: str) -> None:
    assert handed.values is not None
    for condition in CONDITIONS:
        query = question.replace("{view}", handed.values["relation"]).replace("{condition}", condition)
        said = set()
        for id_ in [*HIDDEN, *ABSENT]:
            # A session of its own for each: counters add up.
            with ward.guest(handed.values) as session:
                ask(session, "SET optimizer_trace = 'enabled=on'")
                told = [answers(session, query, id_), *(answers(session, after, id_) for after in AFTERWARDS)]
            said.add("\n".join(told))
        assert len(said) == 1, said


def test_definitions_are_not_visible(guest: Session, handed: Handed) -> None:
    assert handed.values is not None
    relation = handed.values["relation"]
    with pytest.raises(pymysql.Error):
        ask(guest, f"SHOW CREATE VIEW {relation}")
    found = ask(
        guest,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'information_schema'"
        " AND table_name NOT LIKE 'INNODB%'",
    )
    assert len(found) > 40
    asked = 0
    for (name,) in found:
        try:
            rows = ask(guest, f"SELECT * FROM information_schema.{name}")
        except pymysql.Error:
            continue
        asked += 1
        assert SECRET not in str(rows) and "Byron" not in str(rows) and "orders_12" not in str(rows), name
    assert asked > 40
    views = ask(guest, "SELECT table_name, view_definition FROM information_schema.views")
    assert views == ((relation.partition(".")[2], ""),)


def test_view_of_another_slice_is_neither_readable_nor_listed(world: World, guest: Session) -> None:
    _, others = ward_guest(world, ORDERS | {"rows": [["customer", "=", "Byron"]]})
    name = view_of(world.slice_id(others))
    with pytest.raises(pymysql.Error):
        ask(guest, f"SELECT * FROM {name}")
    assert name.partition(".")[2] not in str(ask(guest, "SHOW FULL TABLES FROM guestkey_slices"))
