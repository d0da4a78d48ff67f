"""Promise 12: a slice shows its rows and columns; plans, errors and catalogues tell a guest of nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from broker.embedded.postgres import binary
from broker.kinds.postgres.sessions import view_of
from broker.leases.issuing import Handed
from broker.models import Dataset
from tests.support.data import BERLIN, ROWS
from tests.support.world import CLINIC, World

SECRET = "Lovelace & Sons"
OTHER = "Byron Ltd"
# Every third patient is a customer's; its neighbours are hidden, and so is whoever would come after the last.
_TABLE = f"""
    CREATE TABLE IF NOT EXISTS clinic.orders (id int PRIMARY KEY, customer text, amount numeric(24,4), note text);
    INSERT INTO clinic.orders SELECT n, CASE n % 2 WHEN 0 THEN '{SECRET}' ELSE '{OTHER}' END, n, 'note ' || n
      FROM generate_series(1, {ROWS}) n ON CONFLICT DO NOTHING;
    CREATE INDEX IF NOT EXISTS by_customer ON clinic.orders (customer);
    ANALYZE clinic.orders;
    GRANT SELECT ON clinic.orders TO guestkey_registrar;
"""
ORDERS = CLINIC | {"table": "orders", "columns": ["id", "amount", "note"], "rows": [["customer", "=", SECRET]]}
HIDDEN = range(101, 181, 2)
ABSENT = range(ROWS + 1, ROWS + 41)
Session = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def orders(world: World) -> Dataset:
    """A dataset with the slices of two customers, neither offered to anybody yet."""
    with world.admin() as admin:
        admin.execute(_TABLE)
    return world.dataset(slices={"deidentified": ORDERS, "full": ORDERS | {"rows": [["customer", "=", OTHER]]}})


@pytest.fixture
def handed(world: World, orders: Dataset) -> Handed:
    """A credential for the slice of one customer."""
    return hand(world, orders, "deidentified")


@pytest.fixture
def guest(world: World, handed: Handed) -> Iterator[Session]:
    """A session with it."""
    with world.connect(handed) as session:
        yield session


def hand(world: World, dataset: Dataset, name: str) -> Handed:
    """A credential for one slice, to a vendor of its own."""
    from broker.base.ids import new_id
    from broker.models import Offer

    vendor = world.vendor()
    world.add(Offer(id=new_id("of"), dataset_id=dataset.id, vendor_id=vendor.id))
    signed = world.person(vendor)
    world.grant(dataset, signed)
    return world.issue(signed, dataset, slice=name)


def view(world: World, dataset: Dataset, name: str = "deidentified") -> str:
    """The view of a slice."""
    return view_of(world.slice_id(dataset, name))


def answers(session: Session, query: str, id_: int) -> str:
    """All that PostgreSQL says to a query about one id, the id itself left out."""
    try:
        rows: object = session.execute(query.format(id=id_)).fetchall()
    except psycopg.Error as error:
        rows = [error.sqlstate, error.diag.message_primary, error.diag.message_detail, error.diag.context]
    # As a number by itself, not within a cost or the name of a view; times are switched off by the queries.
    return re.sub(rf"(?<![\w.]){id_}(?!\w|\.[^0])", "ID", json.dumps(rows, default=str))


CONDITIONS = (
    "id = {id}",
    "id IN ({id})",
    "id BETWEEN {id} AND {id}",
    "id = {id} AND 1/(id-{id}) = 1",
    "1/(id-{id}) IS NOT NULL",
    "CASE WHEN id = {id} THEN note::int END = 1",
    "(id = {id} AND note::int > 0)",
    "amount = {id}.0000",
    "note = 'note {id}'",
    "note::xml IS NOT NULL AND id = {id}",
)


@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM {view} WHERE {condition}",
        "EXPLAIN SELECT * FROM {view} WHERE {condition}",
        "EXPLAIN (VERBOSE, COSTS) SELECT * FROM {view} WHERE {condition}",
        "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT * FROM {view} WHERE {condition}",
        "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF, FORMAT JSON) SELECT * FROM {view} WHERE {condition}",
        "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT count(*) FROM"
        " (SELECT * FROM {view} WHERE {condition}) a JOIN {view} b USING (id)",
    ],
)
def test_hidden_ids_behave_like_absent_ones(world: World, orders: Dataset, guest: Session, question: str) -> None:
    asked = question.replace("{view}", view(world, orders))
    for condition in CONDITIONS:
        query = asked.replace("{condition}", condition)
        said = {answers(guest, query, id_) for id_ in [*HIDDEN, *ABSENT]}
        assert len(said) == 1, said


def test_definitions_do_not_show_filter_literals(world: World, orders: Dataset, guest: Session) -> None:
    """All that a guest can read of the catalogues, whatever the table, is searched for both customers' names."""
    readable = guest.execute(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
        " WHERE table_schema IN ('pg_catalog', 'information_schema') AND table_name <> 'pg_stats'"
    ).fetchall()
    assert len(readable) > 100
    asked = 0
    for (relation,) in readable:
        try:
            rows = guest.execute(f"SELECT t::text FROM {relation} t").fetchall()
        except psycopg.errors.InsufficientPrivilege:
            continue
        asked += 1
        text = "\n".join(str(row) for row in rows)
        assert SECRET not in text and OTHER not in text, relation
    assert asked > 100
    definitions = guest.execute(
        "SELECT pg_get_viewdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'v' AND n.nspname LIKE 'slices%'"
        " UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname LIKE 'slices%'"
    ).fetchall()
    assert len(definitions) > 3
    assert not [text for (text,) in definitions if SECRET in text or OTHER in text]


def test_only_the_registrar_can_read_filter_literals(world: World, orders: Dataset, guest: Session) -> None:
    with world.admin() as admin:
        tables = admin.execute("SELECT relname FROM pg_class WHERE relname ~ '^f_' AND relkind = 'r'").fetchall()
    assert len(tables) >= 2
    for (name,) in tables:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            guest.execute(f"SELECT * FROM slices_private.{name}")
    assert guest.execute("SELECT count(*) FROM pg_stats WHERE schemaname = 'slices_private'").fetchone() == (0,)


def test_function_of_another_slice_returns_no_rows(world: World, orders: Dataset, guest: Session) -> None:
    for relation in (
        view(world, orders, "full"),
        view(world, orders, "full").replace("slices.v_", "slices_private.r_") + "()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            guest.execute(f"SELECT * FROM {relation}")


@pytest.mark.parametrize("spoil", ["statement_timeout = '1ms'", "work_mem = '64kB'", "row_security = off"])
def test_errors_do_not_reveal_filter_literals(world: World, orders: Dataset, guest: Session, spoil: str) -> None:
    """Settings a guest may choose break the reading off; what is said of it holds nothing of the row filter."""
    guest.execute(f"SET {spoil}")
    try:
        guest.execute(f"SELECT count(pg_sleep(0.01)) FROM {view(world, orders)}, generate_series(1, 5)")
    except psycopg.Error as error:
        said = [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint, error.diag.context]
        assert SECRET not in " ".join(filter(None, said)) and "SELECT" not in " ".join(filter(None, said)), said


@pytest.mark.parametrize(
    "setting", ["timezone = 'Pacific/Kiritimati'", "datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'"]
)
def test_session_settings_do_not_change_the_row_filter(world: World, setting: str) -> None:
    with world.admin() as admin:
        admin.execute(
            "CREATE TABLE IF NOT EXISTS clinic.moments (id int, at timestamptz, day date, lasts interval);"
            " TRUNCATE clinic.moments; GRANT SELECT ON clinic.moments TO guestkey_registrar;"
            " INSERT INTO clinic.moments SELECT n, '2026-01-01Z'::timestamptz + n * interval '1 h',"
            " '2026-01-02'::date + n, n * interval '-1 h' FROM generate_series(-48, 48) n"
        )
    rows = [["at", ">=", "2026-01-01T00:00:00Z"], ["day", "<=", "2026-01-31"]]
    for fast in (False, True):
        binding = CLINIC | {"table": "moments", "columns": ["id"], "rows": rows, "fast": fast}
        dataset = world.dataset(slices={"deidentified": binding})
        with world.connect(hand(world, dataset, "deidentified")) as session:
            seen = session.execute(f"SELECT id FROM {view(world, dataset)}").fetchall()
            session.execute(f"SET {setting}")
            assert session.execute(f"SELECT id FROM {view(world, dataset)}").fetchall() == seen
            assert 0 < len(seen) < 97


def test_row_security_tables_use_the_same_barrier(world: World) -> None:
    """Row-level security, and a view in place of a table: no row filter is ours, and rows are hidden all the same."""
    with world.admin() as admin:
        admin.execute(
            "DROP TABLE IF EXISTS clinic.guarded_orders CASCADE; CREATE TABLE clinic.guarded_orders (id int);"
            f" INSERT INTO clinic.guarded_orders SELECT generate_series(1, {ROWS});"
            " ALTER TABLE clinic.guarded_orders ENABLE ROW LEVEL SECURITY;"
            " CREATE POLICY even ON clinic.guarded_orders USING (id % 2 = 0);"
            " CREATE OR REPLACE VIEW clinic.even_orders AS SELECT id FROM clinic.guarded_orders WHERE id % 2 = 0;"
            " GRANT SELECT ON clinic.guarded_orders, clinic.even_orders TO guestkey_registrar"
        )
    for table in ("guarded_orders", "even_orders"):
        dataset = world.dataset(slices={"deidentified": CLINIC | {"table": table, "columns": ["id"]}})
        with world.connect(hand(world, dataset, "deidentified")) as session:
            # Buffers are those of the whole slice, and the first reading of a page counts differently from the next.
            options = "ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF"
            query = f"EXPLAIN ({options}) SELECT * FROM {view(world, dataset)} WHERE id = {{id}}"
            answers(session, query, 101)
            said = {answers(session, query, id_) for id_ in [*HIDDEN, *ABSENT]}
            assert len(said) == 1, said


def test_fast_slice_hides_rows_and_literals_but_reveals_existence(world: World) -> None:
    """What docs and portal say of it: this test fails should it ever stop telling, and then they must say so."""
    with world.admin() as admin:
        admin.execute(_TABLE)
    dataset = world.dataset(slices={"deidentified": ORDERS | {"fast": True}})
    with world.connect(hand(world, dataset, "deidentified")) as session:
        name = view(world, dataset)
        session.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        assert session.execute(f"SELECT count(*) FROM {name}").fetchone() == (BERLIN,)
        assert session.execute(f"SELECT 1 FROM {name} WHERE 1/(id - 101) IS NULL").fetchall() == []
        analysed = "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT * FROM {name} WHERE id = {{id}}"
        analysed = analysed.replace("{name}", name).replace("{{", "{").replace("}}", "}")
        assert SECRET not in answers(session, analysed, 101)
        assert answers(session, analysed, 101) != answers(session, analysed, 301)


def test_psql_lists_the_view_of_the_slice(world: World, orders: Dataset, handed: Handed) -> None:
    r"""`\d` finds it without its schema being named, and nothing of what stands behind it."""
    assert handed.values is not None
    surroundings = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(world.stack.ports.data) if hasattr(world.stack.ports, "data") else handed.values["port"],
        "PGDATABASE": "data",
        "PGUSER": handed.values["username"],
        "PGPASSWORD": handed.values["password"],
    }
    name = view(world, orders)
    bare = name.partition(".")[2]
    asked = ["-c", r"\d", "-c", rf"\d {bare}", "-c", f"SELECT count(*) FROM {bare}"]
    done = subprocess.run(
        [binary("psql"), "-X", "-At", *asked], env=surroundings, capture_output=True, text=True, check=True
    )
    assert f"slices|{bare}|view" in done.stdout and "amount|numeric" in done.stdout
    assert "f_" not in done.stdout and "r_" not in done.stdout.replace("guestkey_registrar", "")
    assert done.stdout.strip().endswith(f"\n{BERLIN}")
