"""Slices in PostgreSQL: exactly what the binding says, made twice, changed, and taken away again."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from broker.base.database import clock
from broker.base.errors import BackendDown, Invalid
from broker.base.ids import new_id
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.names import policy_of, role_of
from broker.kinds.postgres import views
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.sessions import view_of
from broker.kinds.postgres.slices import register, unregister
from broker.models import Dataset, Slice
from broker.revocation import ending
from broker.runtime.parts import vault_of
from broker.worker import slice_registration
from tests.support.data import BERLIN, ROWS
from tests.support.world import CLINIC, DEIDENTIFIED, World


@pytest.fixture
def setup(world: World) -> Vault:
    """OpenBao as the identity that registers slices."""
    return vault_of(world.settings, "setup")


def rows_of(world: World, slice_id: str) -> int:
    """How many rows a slice shows."""
    with world.admin() as admin:
        return len(admin.execute(f"SELECT * FROM {view_of(slice_id)}").fetchall())


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (["id", "=", 7], 1),
        (["id", "<>", 7], ROWS - 1),
        (["id", "<", 11], 10),
        (["id", "<=", 11], 11),
        (["id", ">", ROWS - 2], 2),
        (["id", ">=", ROWS - 2], 3),
        (["id", ">=", 199.5], 1),
        (["id", "in", [1, 2, ROWS + 1]], 2),
        (["site", "in", ["berlin", "paris"]], ROWS),
        (["site", "is_null"], 0),
        (["site", "not_null"], ROWS),
        (["name", "=", "Patient 7"], 1),
        (["name", "=", "O'Hara \\ %s {} --"], 0),
    ],
)
@pytest.mark.parametrize("fast", [False, True])
def test_filter_operators_work(world: World, setup: Vault, row: list[Any], count: int, *, fast: bool) -> None:
    slice_id, binding = new_id("sl"), CLINIC | {"columns": ["id"], "rows": [row], "fast": fast}
    register(setup, slice_id, binding)
    assert rows_of(world, slice_id) == count
    unregister(setup, slice_id, binding)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, -(2**64), "\ud800", "a\x00", None, "x" * 1001])
def test_literal_that_fails_at_query_time_is_refused(value: object) -> None:
    for row in (["id", "=", value], ["id", "in", [1, value]]):
        with pytest.raises(Invalid):
            PostgresBinding.parse(CLINIC | {"columns": ["id"], "rows": [row]})


@pytest.mark.parametrize("schema", ["slices", "slices_private", "guestkey_ops", "pg_toast"])
def test_own_and_system_schemas_cannot_be_slices(schema: str) -> None:
    with pytest.raises(Invalid, match="cannot be part"):
        PostgresBinding.parse(CLINIC | {"columns": ["id"], "schema": schema})


def test_a_canonical_binding_stays_as_it_is() -> None:
    canonical = PostgresBinding.parse(DEIDENTIFIED).canonical()
    assert PostgresBinding.parse(canonical).canonical() == canonical


@pytest.mark.parametrize("rows", [[["age", "in", [True, 1]]], [["age", "=", "old"]], [["age", "=", True]]])
def test_a_literal_of_another_type_fails_the_slice(world: World, setup: Vault, rows: list[Any]) -> None:
    with pytest.raises(Invalid, match="another type"):
        register(setup, new_id("sl"), CLINIC | {"columns": ["id"], "rows": rows})


def test_a_column_the_registrar_may_not_read_fails_the_slice(world: World, setup: Vault) -> None:
    """Else the slice would be ready, and every guest's query refused."""
    with world.admin() as admin:
        admin.execute(
            "CREATE TABLE IF NOT EXISTS clinic.guarded (id int, name text);"
            " GRANT SELECT (id) ON clinic.guarded TO guestkey_registrar;"
            " GRANT UPDATE ON clinic.guarded TO guestkey_registrar"
        )
    guarded, slice_id = CLINIC | {"table": "guarded", "rows": []}, new_id("sl")
    with pytest.raises(Invalid, match="no column name, or the registrar"):
        register(setup, slice_id, guarded | {"columns": ["id", "name"]})
    register(setup, slice_id, guarded | {"columns": ["id"]})
    unregister(setup, slice_id, guarded | {"columns": ["id"]})


def test_unknown_connection_is_reported_as_backend_down(setup: Vault) -> None:
    with pytest.raises(BackendDown):
        register(setup, new_id("sl"), CLINIC | {"columns": ["id"], "connection": "nowhere"})


def test_registering_again_changes_what_is_shown_and_nothing_else(world: World, setup: Vault) -> None:
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset)
    slice_id = world.slice_id(dataset)
    with world.connect(handed) as session:
        assert len(session.execute(f"SELECT * FROM {view_of(slice_id)}").fetchall()) == BERLIN
        register(setup, slice_id, DEIDENTIFIED)
        assert len(session.execute(f"SELECT * FROM {view_of(slice_id)}").fetchall()) == BERLIN
        register(setup, slice_id, CLINIC | {"columns": ["id"], "rows": [["id", "=", 1]]})
        assert session.execute(f"SELECT * FROM {view_of(slice_id)}").fetchall() == [(1,)]
    world.change(Slice, slice_id, state="retired")


def test_unregistering_removes_everything(world: World, setup: Vault) -> None:
    slice_id = new_id("sl")
    register(setup, slice_id, DEIDENTIFIED)
    assert traces(world, slice_id) == 2
    for _ in range(2):
        unregister(setup, slice_id, DEIDENTIFIED)
        assert traces(world, slice_id) == 0
    token = world.parts.vault.child_token(f"{world.parts.tag}-lgone", "lgone", [policy_of(slice_id)], ttl=30)
    with pytest.raises(VaultRefused):
        world.parts.vault.database_credential(token, role_of(slice_id))


def test_reconnecting_a_database_needs_no_administrator(
    world: World, setup: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the schema that guests cannot list, what stands behind a view lies beside it, and moves there later."""
    slice_id = new_id("sl")
    monkeypatch.setattr(views, "_PRIVATE", "SELECT 1 WHERE false")
    register(setup, slice_id, DEIDENTIFIED)
    assert (rows_of(world, slice_id), homes(world, slice_id)) == (BERLIN, {"slices"})
    monkeypatch.undo()
    register(setup, slice_id, DEIDENTIFIED)
    assert (rows_of(world, slice_id), homes(world, slice_id)) == (BERLIN, {"slices_private"})
    unregister(setup, slice_id, DEIDENTIFIED)
    assert homes(world, slice_id) == set()


def homes(world: World, slice_id: str) -> set[str]:
    """The schemas in which literals or a function of a slice lie."""
    name = slice_id.removeprefix("sl_")
    with world.admin() as admin:
        found = admin.execute(
            "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'f_' || %(name)s"
            " UNION SELECT pronamespace::regnamespace::text FROM pg_proc WHERE proname = 'r_' || %(name)s",
            {"name": name},
        )
        return {str(schema) for (schema,) in found}


@pytest.mark.parametrize("how", ["slice", "dataset"])
def test_a_retired_slice_is_removed_once_its_leases_have_ended(world: World, setup: Vault, how: str) -> None:
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset)
    slice_id = world.slice_id(dataset)
    with world.database.transaction() as tx:
        if how == "slice":
            ending.retire_slice(tx, slice_id, signed.caller, "", clock(tx))
        else:
            ending.suspend_dataset(tx, dataset.id, signed.caller, "", clock(tx), status="retired")
    slice_registration.remove_retired(world.ender, setup)
    assert traces(world, slice_id) == 2, "its lease still has to be ended by its statements"
    world.wait_sweeping(handed.lease.id, "revoked")
    assert slice_registration.remove_retired(world.ender, setup) >= 1
    assert traces(world, slice_id) == 0
    assert world.events(slice_id)[-1] == "slice.removed"
    with world.database.transaction() as tx:
        assert tx.get_one(Slice, slice_id).state == "retired"
        assert tx.get_one(Dataset, dataset.id)
    slice_registration.remove_retired(world.ender, setup)
    assert world.events(slice_id).count("slice.removed") == 1


@pytest.mark.parametrize(
    "slice_id", ["sl_a b", 'sl_a"', "sl_", "sl_A", "ds_1", "sl_a'; DROP TABLE x", "sl_" + "a" * 41]
)
def test_a_slice_id_that_could_widen_a_statement_is_refused(setup: Vault, slice_id: str) -> None:
    with pytest.raises(ValueError, match="unsafe slice id"):
        register(setup, slice_id, DEIDENTIFIED)


def traces(world: World, slice_id: str) -> int:
    """How many roles and views of a slice PostgreSQL shows."""
    name = slice_id.removeprefix("sl_")
    with psycopg.connect(world.stack.postgres.url("postgres", "data")) as admin:
        row = admin.execute(
            "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = 'gks_' || %(name)s)"
            " + (SELECT count(*) FROM pg_views WHERE viewname = 'v_' || %(name)s)",
            {"name": name},
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_temporary_file_limit_allows_a_slice_of_a_large_table(world: World) -> None:
    """Rows behind a function pass through a temporary file: a bound below that would cut a slice off."""
    megabytes = 24
    with world.admin() as admin:
        admin.execute("DROP TABLE IF EXISTS clinic.large")
        admin.execute(
            "CREATE TABLE clinic.large AS SELECT n AS id, repeat(md5(n::text), 8) AS note"
            f" FROM generate_series(1, {megabytes * 4096}) n"
        )
        admin.execute("GRANT SELECT ON clinic.large TO guestkey_registrar")
        stored = admin.execute("SELECT pg_table_size('clinic.large') / 1048576").fetchone()
    try:
        vendor = world.vendor()
        signed = world.person(vendor)
        binding = CLINIC | {"table": "large", "columns": ["id", "note"], "rows": [["id", ">", 0]]}
        dataset = world.dataset(vendor, slices={"deidentified": binding})
        world.grant(dataset, signed)
        handed = world.issue(signed, dataset)
        with world.connect(handed) as session:
            bound = session.execute("SELECT setting::bigint / 1024 FROM pg_settings WHERE name = 'temp_file_limit'")
            found = bound.fetchone()
            assert stored and found
            assert 1024 + 4 * stored[0] <= found[0] <= 1024 + 4 * (stored[0] + 1), (found, stored)
            view = view_of(world.slice_id(dataset))
            counted = session.execute(f"SELECT count(*) FROM {view}").fetchone()
            assert counted == (megabytes * 4096,)
    finally:
        with world.admin() as admin:
            admin.execute("DROP TABLE clinic.large CASCADE")
