"""Slices in MariaDB: exactly what the binding says, made twice, changed, and taken away again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from broker.base.errors import BackendDown, Invalid
from broker.base.ids import new_id
from broker.base.settings import is_loopback
from broker.embedded.openbao import Operator
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.mariadb.binding import MariadbBinding
from broker.kinds.mariadb.connection import MariadbConnection
from broker.kinds.mariadb.slices import connected, register, unregister, view_of
from broker.kinds.names import policy_of, role_of
from broker.runtime.parts import vault_of
from tests.support.data import BERLIN, ROWS
from tests.support.mariadb import WARD, WARD_DEIDENTIFIED, Mariadb
from tests.support.world import World


@pytest.fixture
def setup(world: World) -> Vault:
    """OpenBao as the identity that registers slices."""
    return vault_of(world.settings, "setup")


@pytest.fixture
def slice_id(setup: Vault, ward: Mariadb) -> Iterator[str]:
    """An id for a slice, removed afterwards."""
    made = new_id("sl")
    yield made
    unregister(setup, made, WARD_DEIDENTIFIED)


def rows_of(ward: Mariadb, slice_id: str) -> int:
    """How many rows a slice shows."""
    return int(ward.ask(f"SELECT count(*) FROM {view_of(slice_id)}")[0][0])


@pytest.mark.parametrize(
    "change",
    [
        {"table": "patients; DROP TABLE x"},
        {"table": "pat`ients"},
        {"table": "global_priv", "schema": "mysql"},
        *({"schema": name} for name in ("information_schema", "performance_schema", "sys", "guestkey_slices")),
        {"columns": []},
        {"columns": ["*"]},
        {"columns": ["id", "id"]},
        {"rows": [["site", "= 'x' OR 1=1 --", "y"]]},
        {"rows": [["site", "in", []]]},
        {"rows": ["site = 'berlin'"]},
        {"connection": "../ward"},
        {"where": "1=1"},
    ],
)
def test_a_binding_that_could_widen_a_slice_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        MariadbBinding.parse(WARD | {"columns": ["id"]} | change)
    assert refused.value.field.startswith("/binding")


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (["id", "=", 7], 1),
        (["id", "<>", 7], ROWS - 1),
        (["id", "<", 11], 10),
        (["id", "<=", 11], 11),
        (["id", ">", ROWS - 2], 2),
        (["id", ">=", 199.5], 1),
        (["id", "in", [1, 2, ROWS + 1]], 2),
        (["site", "in", ["berlin", "paris"]], ROWS),
        (["site", "is_null"], 0),
        (["site", "not_null"], ROWS),
        (["site", ">", "berlin"], BERLIN),
        (["name", "=", "Patient 7"], 1),
        (["seen", ">=", "2026-01-01"], ROWS),
        (["seen", "<", "2026-01-01"], 0),
        (["name", "=", "O'Hara \\ %s {} -- `"], 0),
        (["name", "=", "x' OR '1'='1"], 0),
        (["name", "=", "\\' OR 1=1 -- "], 0),
        (["name", "=", "😀"], 0),
    ],
)
@pytest.mark.parametrize("mode", ["STRICT_TRANS_TABLES", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES"])
def test_filter_operators_work_and_literals_are_escaped(
    ward: Mariadb, setup: Vault, slice_id: str, row: list[Any], count: int, mode: str
) -> None:
    ((before,),) = ward.ask("SELECT @@GLOBAL.sql_mode")
    ward.ask("SET GLOBAL sql_mode = %s", mode)
    try:
        register(setup, slice_id, WARD | {"columns": ["id"], "rows": [row]})
        assert rows_of(ward, slice_id) == count
    finally:
        ward.ask("SET GLOBAL sql_mode = %s", before)


@pytest.mark.parametrize(
    "row",
    [
        # Each of these MariaDB would compare after a conversion: the second shows every row.
        ["age", "=", "old"],
        ["site", "=", 0],
        ["site", "in", ["berlin", 0]],
        ["site", "<>", True],
        ["seen", ">", "yesterday"],
        ["seen", ">", 0],
    ],
)
def test_a_literal_of_another_type_fails_the_slice(ward: Mariadb, setup: Vault, row: list[Any]) -> None:
    ward.ask("ALTER TABLE clinic.patients ADD COLUMN IF NOT EXISTS scan blob")
    assert ward.ask("SELECT count(*) FROM clinic.patients WHERE site = 0") == ((ROWS,),), "the trap is real"
    with pytest.raises(Invalid, match="another type"):
        register(setup, new_id("sl"), WARD | {"columns": ["id"], "rows": [row]})


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (["name", "=", "acme"], {1}),
        (["name", "in", ["acme", "ACME"]], {1, 2}),
        (["name", "<>", "acme"], {2, 3, 4, 5}),
        (["name", ">=", "acme"], {1, 3, 4}),
        (["name", "=", "acmé"], {4}),
    ],
)
def test_texts_are_compared_by_bytes(
    ward: Mariadb, setup: Vault, slice_id: str, row: list[Any], shown: set[int]
) -> None:
    ward.ask("CREATE OR REPLACE TABLE clinic.parties (id int, name varchar(20)) CHARACTER SET latin1")
    ward.ask("INSERT INTO clinic.parties VALUES (1, 'acme'), (2, 'ACME'), (3, 'acme '), (4, 'acmé'), (5, 'Acme')")
    assert ward.ask("SELECT count(*) FROM clinic.parties WHERE name = 'acme'") == ((5,),), "the trap is real"
    register(setup, slice_id, WARD | {"table": "parties", "columns": ["id"], "rows": [row]})
    assert {found for (found,) in ward.ask(f"SELECT id FROM {view_of(slice_id)}")} == shown


@pytest.mark.parametrize(
    ("change", "said"),
    [({"table": "nowhere"}, "no such table"), ({"columns": ["id", "salary"]}, "no column salary")],
)
def test_impossible_slice_fails_with_the_reason(ward: Mariadb, setup: Vault, change: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        register(setup, new_id("sl"), WARD | {"columns": ["id"], "rows": []} | change)


def test_a_column_the_registrar_may_not_read_fails_the_slice(ward: Mariadb, setup: Vault, slice_id: str) -> None:
    ward.ask("CREATE DATABASE IF NOT EXISTS guarded")
    ward.ask("CREATE TABLE IF NOT EXISTS guarded.visits (id int, name text)")
    ward.ask("GRANT SELECT (id), UPDATE ON guarded.visits TO guestkey_registrar@'%'")
    guarded = WARD | {"schema": "guarded", "table": "visits"}
    with pytest.raises(Invalid, match="no column name, or the registrar"):
        register(setup, slice_id, guarded | {"columns": ["id", "name"]})
    register(setup, slice_id, guarded | {"columns": ["id"]})
    assert rows_of(ward, slice_id) == 0
    ward.ask("REVOKE SELECT (id), UPDATE ON guarded.visits FROM guestkey_registrar@'%'")


def test_registering_again_changes_what_is_shown(ward: Mariadb, setup: Vault, slice_id: str) -> None:
    for _ in range(2):
        register(setup, slice_id, WARD_DEIDENTIFIED)
        assert rows_of(ward, slice_id) == BERLIN
    register(setup, slice_id, WARD | {"columns": ["id"], "rows": [["id", "=", 1]]})
    assert ward.ask(f"SELECT * FROM {view_of(slice_id)}") == ((1,),)


def test_unregistering_removes_everything(world: World, ward: Mariadb, setup: Vault) -> None:
    slice_id = new_id("sl")
    register(setup, slice_id, WARD_DEIDENTIFIED)
    views = "SELECT count(*) FROM information_schema.views WHERE table_name = %s"
    name = view_of(slice_id).partition(".")[2]
    assert ward.ask(views, name) == ((1,),)
    for _ in range(2):
        unregister(setup, slice_id, WARD_DEIDENTIFIED)
        assert ward.ask(views, name) == ((0,),)
    token = world.parts.vault.child_token(f"{world.parts.tag}-lgone", "lgone", [policy_of(slice_id)], ttl=30)
    with pytest.raises(VaultRefused):
        world.parts.vault.database_credential(token, role_of(slice_id))


@pytest.mark.parametrize("name", ["nowhere", "data"], ids=["unknown", "a database of PostgreSQL"])
def test_unknown_connection_is_reported_as_backend_down(setup: Vault, name: str) -> None:
    with pytest.raises(BackendDown):
        register(setup, new_id("sl"), WARD_DEIDENTIFIED | {"connection": name})


@pytest.mark.parametrize("slice_id", ["sl_a b", "sl_a`", "sl_", "ds_1", "sl_a'; DROP TABLE x"])
def test_a_slice_id_that_could_widen_a_statement_is_refused(ward: Mariadb, setup: Vault, slice_id: str) -> None:
    with pytest.raises(ValueError, match="unsafe slice id"):
        register(setup, slice_id, WARD_DEIDENTIFIED)


@pytest.mark.parametrize("ca_file", ["", "/etc/ssl/certs/ca-certificates.crt", "/nowhere/ca.pem"])
def test_impostor_server_is_refused(world: World, ward: Mariadb, setup: Vault, ca_file: str) -> None:
    """A name that leads here is not in its certificate, and neither is its authority known to the system."""
    url = setup.secret("connections/ward/registrar")["url"]
    posing = url.replace(str(ward.ca_file), ca_file) if ca_file else url.replace("127.0.0.1", "localhost")
    operator = Operator(world.stack.bao)
    operator._call("POST", "guestkey/data/connections/posing/registrar", {"data": {"url": posing}})
    with pytest.raises(BackendDown):
        connected(setup, "posing", "registrar")


def test_tls_can_be_disabled_only_for_localhost() -> None:
    assert MariadbConnection(host="127.0.0.1", ssl="off").ssl == "off"
    for host in ("db.example.com", "127.0.0.1.example.com", "10.0.0.1"):
        assert not is_loopback(host)
        with pytest.raises(ValidationError, match="this machine only"):
            MariadbConnection(host=host, ssl="off")
