"""What a guest's PostgreSQL user can and cannot do, and how it ends: each fault of this stack, on the real parts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from broker.base.database import clock
from broker.base.errors import Invalid
from broker.base.ids import new_id
from broker.kinds.discovery import kinds
from broker.kinds.names import role_of, user_of
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.views import look
from broker.kinds.values import LeaseToEnd
from broker.leases.issuing import Handed
from broker.models import Lease
from broker.revocation import ending
from broker.runtime.parts import vault_of
from tests.support.data import BERLIN
from tests.support.world import CLINIC, DEIDENTIFIED, World

# Not privileged; no such column; a view cannot be truncated; nobody renames themselves; no prepared transactions.
_REFUSALS = ("42501", "42703", "42809", "0A000", "55000")
Session = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def handed(world: World) -> Iterator[Handed]:
    """A credential in use; ended afterwards, whatever the test did with it."""
    signed, dataset, _ = world.guest()
    made = world.issue(signed, dataset)
    _await_lengthened(world, user_of(made.lease.handle))
    yield made
    with world.database.transaction() as tx:
        ending.revoke_lease(tx, tx.get_one(Lease, made.lease.id), signed.caller, "", clock(tx))
    world.sweep()
    assert world.lease(made.lease.id).state == "revoked"
    assert world.roles_of(made.lease.id) == 0


def _await_lengthened(world: World, user: str) -> None:
    """The user's minute is lengthened beside the answer; what a test changes of it must not meet that."""
    end = time.monotonic() + 10
    with world.admin() as admin:
        while not admin.execute(
            "SELECT 1 FROM pg_roles WHERE rolname = %s AND rolvaliduntil > now() + interval '90 s'", (user,)
        ).fetchone():
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def session(world: World, handed: Handed) -> Iterator[Session]:
    """The guest's own session."""
    with world.connect(handed) as opened:
        yield opened


@pytest.mark.fast
def test_guest_reads_only_columns_and_rows_of_the_slice(session: Session, handed: Handed) -> None:
    assert handed.values is not None
    rows = session.execute(f"SELECT * FROM {handed.values['relation']}").fetchall()
    assert len(rows) == BERLIN
    assert {(len(row), row[1]) for row in rows} == {(3, "berlin")}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM clinic.patients",
        "SELECT name FROM {relation}",
        "CREATE TABLE public.mine (x int)",
        "CREATE TABLE slices.mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE TEMP TABLE mine (x int)",
        "CREATE FUNCTION pg_temp.leak(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SET ROLE {group}",
        "SET SESSION AUTHORIZATION postgres",
        "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'",
        "ALTER ROLE CURRENT_USER CONNECTION LIMIT 100",
        "ALTER ROLE CURRENT_USER CREATEDB",
        "GRANT {group} TO guestkey_watch",
        "CREATE ROLE accomplice LOGIN",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT guestkey_ops.end_sessions('postgres')",
        "INSERT INTO {relation} VALUES (1, 'berlin', 1)",
        "UPDATE {relation} SET age = 0",
        "DELETE FROM {relation}",
        "TRUNCATE {relation}",
        "BEGIN; LOCK TABLE clinic.patients IN ACCESS SHARE MODE",
        "COPY clinic.patients TO STDOUT",
        "COPY (SELECT 1) TO '/tmp/guestkey-stolen'",
        "CREATE OR REPLACE VIEW {relation} AS SELECT * FROM clinic.patients",
        "ALTER VIEW {relation} SET (security_barrier = false)",
        'ALTER ROLE "{user}" RENAME TO mine',
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "ALTER ROLE guestkey_watch PASSWORD 'mine'",
        "CREATE PUBLICATION mine FOR ALL TABLES",
        "CREATE SUBSCRIPTION mine CONNECTION 'host=127.0.0.1' PUBLICATION p",
        "CREATE EXTENSION pg_trgm SCHEMA slices",
        "CREATE OPERATOR CLASS pg_temp.leak FOR TYPE int USING btree AS STORAGE int",
        "SELECT pg_create_physical_replication_slot('mine')",
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'guestkey_minter'",
        "SELECT lo_open(1, 131072)",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_ls_dir('.')",
        "SELECT pg_reload_conf()",
        "ALTER SYSTEM SET log_statement = 'all'",
        "SET session_replication_role = replica",
        "SET log_statement = 'all'",
        "LOAD 'auto_explain'",
        # Prepared, it would outlive its session and keep its locks.
        "BEGIN; SELECT count(*) FROM {relation}; PREPARE TRANSACTION 'mine'",
    ],
)
def test_statement_is_refused(session: Session, handed: Handed, statement: str) -> None:
    assert handed.values is not None
    relation = handed.values["relation"]
    group = "gks_" + relation.removeprefix("slices.v_")
    with pytest.raises(psycopg.Error) as refused:
        session.execute(statement.format(relation=relation, group=group, user=handed.values["username"]))
    assert refused.value.sqlstate in _REFUSALS


def test_errors_and_statistics_do_not_reveal_rows_outside_the_slice(session: Session, handed: Handed) -> None:
    """Without the security barrier the condition below would run first, and stumble over a hidden row."""
    assert handed.values is not None
    relation = handed.values["relation"]
    probe = f"SELECT count(*) FROM {relation} WHERE 1 / (CASE WHEN site = 'paris' THEN 0 ELSE 1 END) = 1"
    assert session.execute(probe).fetchone() == (BERLIN,)
    assert session.execute("SELECT count(*) FROM pg_stats WHERE schemaname = 'clinic'").fetchone() == (0,)


def test_guest_cannot_connect_to_other_databases(world: World, handed: Handed) -> None:
    assert handed.values is not None
    for database in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(
                host="127.0.0.1",
                port=world.stack.ports.postgres,
                dbname=database,
                user=handed.values["username"],
                password=handed.values["password"],
            )


def test_fourth_session_is_refused(world: World, handed: Handed) -> None:
    sessions = [world.connect(handed) for _ in range(3)]
    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        world.connect(handed)
    for opened in sessions:
        opened.close()


def test_backend_names_do_not_reveal_vendor_or_dataset(session: Session, world: World, handed: Handed) -> None:
    """Every database user can list roles and relations, so their names must be opaque."""
    names = session.execute(
        "SELECT rolname FROM pg_roles UNION SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = 'slices'"
    ).fetchall()
    said = " ".join(name for (name,) in names)
    for secret in ("trials", "Vendor", handed.lease.person_id or "", handed.lease.dataset_id):
        assert secret.lower() not in said.lower()


@pytest.mark.parametrize(
    "trick",
    [
        "ALTER ROLE CURRENT_USER PASSWORD 'another'",
        "ALTER ROLE CURRENT_USER SET statement_timeout = 0",
        "SET statement_timeout = 0; SET default_transaction_read_only = off",
    ],
)
def test_guest_cannot_prevent_its_end(session: Session, handed: Handed, trick: str) -> None:
    """The fixture ends the lease afterwards and asserts that nothing is left."""
    try:
        session.execute(trick)
    except psycopg.errors.InternalError_:
        # The same moment, the user's minute was being lengthened: "tuple concurrently updated".
        time.sleep(1)
        session.execute(trick)


def test_object_owned_by_the_user_does_not_prevent_its_end(world: World, handed: Handed) -> None:
    user = user_of(handed.lease.handle)
    with world.admin() as admin:
        admin.execute(f'CREATE TABLE public.owned (x int); ALTER TABLE public.owned OWNER TO "{user}"')


def test_manually_dropped_user_ends_cleanly(world: World, handed: Handed) -> None:
    with world.admin() as admin:
        admin.execute(f'DROP OWNED BY "{user_of(handed.lease.handle)}"')
        admin.execute(f'DROP ROLE "{user_of(handed.lease.handle)}"')


def test_lease_lost_by_openbao_is_ended_in_postgresql(world: World) -> None:
    signed, dataset, _ = world.guest()
    made = world.issue(signed, dataset)
    lease = world.lease(made.lease.id)
    open_session = world.connect(made)
    kind = kinds["postgres"]
    binding = DEIDENTIFIED | {"connection": "data"}
    confirmed = kind.end(
        world.ender.vault, LeaseToEnd(lease.id, lease.handle, binding, "database/creds/gk-gone/nothing")
    )
    assert "no such role" in confirmed
    assert world.roles_of(lease.id) == 0
    with pytest.raises(psycopg.OperationalError):
        open_session.execute("SELECT 1")
    open_session.close()
    assert kind.end(world.ender.vault, LeaseToEnd(lease.id, lease.handle, binding)) == confirmed


def test_never_activated_user_expires(world: World) -> None:
    """OpenBao ends a user with its token, without any sweeper: here after two seconds instead of sixty."""
    _, dataset, _ = world.guest()
    slice_id = world.slice_id(dataset)
    handle = f"{world.parts.tag}-l{'0' * 24}zz"
    token = world.parts.vault.child_token(handle, "zz", kinds["postgres"].policies(slice_id, "read"), ttl=2)
    world.parts.vault.database_credential(token, role_of(slice_id))
    assert world.roles_of("0zz") == 1
    end = time.monotonic() + 10
    while world.roles_of("0zz"):
        assert time.monotonic() < end
        time.sleep(0.2)


def test_expired_broker_token_is_replaced_and_leases_stay(world: World, handed: Handed) -> None:
    world.parts.vault._client.token = "s.dead"
    signed, dataset, _ = world.guest()
    again = world.issue(signed, dataset)
    for credential in (handed, again):
        with world.connect(credential) as opened:
            assert opened.execute("SELECT 1").fetchone() == (1,)


def test_child_token_can_read_exactly_one_path(world: World) -> None:
    from broker.keystore.vault import VaultRefused

    _, one, _ = world.guest()
    _, other, _ = world.guest()
    token = world.parts.vault.child_token(
        f"{world.parts.tag}-lone", "lone", kinds["postgres"].policies(world.slice_id(one), "read"), ttl=30
    )
    with pytest.raises(VaultRefused):
        world.parts.vault.database_credential(token, role_of(world.slice_id(other)))


def test_many_leases_end_together(world: World) -> None:
    signed, dataset, grant = world.guest()
    made = [world.issue(signed, dataset) for _ in range(5)]
    with world.database.transaction() as tx:
        assert len(ending.revoke_grant(tx, grant.id, signed.caller, "", clock(tx))) == 5
    sweeps = [threading.Thread(target=world.sweep) for _ in range(3)]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join(30)
    for handed_ in made:
        assert world.lease(handed_.lease.id).state == "revoked"
        assert world.events(handed_.lease.id).count("lease.revoked") == 1


def test_unconfirmed_end_is_retried_and_reported(world: World) -> None:
    signed, dataset, _ = world.guest()
    made = world.issue(signed, dataset)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("broker.kinds.postgres.ending._remains", lambda *_: "1 role, 0 sessions")
        world.change(Lease, made.lease.id, expires_at=world.now())
        world.sweep()
    failed = world.lease(made.lease.id)
    assert (failed.state, failed.attempts) == ("revoke_failed", 1)
    assert failed.next_attempt_at is not None
    assert failed.next_attempt_at > world.now() - timedelta(seconds=1)
    assert "lease.revoke_failed" in world.events(made.lease.id)
    world.wait_sweeping(made.lease.id, "expired")


@pytest.mark.parametrize(
    "change",
    [
        {"table": "patients; DROP TABLE x"},
        {"table": 'pat"ients'},
        {"table": "pg_authid", "schema": "pg_catalog"},
        {"schema": "information_schema"},
        {"schema": "pg_catalog"},
        {"columns": []},
        {"columns": ["*"]},
        {"columns": ["id", "id"]},
        {"columns": "id"},
        {"columns": ["id, name"]},
        {"rows": [["site", "= 'x' OR 1=1 --", "y"]]},
        {"rows": [["site", "LIKE", "%"]]},
        {"rows": [["site", "=", {"a": 1}]]},
        {"rows": [["site", "=", "a\x00b"]]},
        {"rows": [["site", "in", []]]},
        {"rows": [["site", "is_null", "x"]]},
        {"rows": ["site = 'berlin'"]},
        {"connection": "../data"},
        {"connection": None},
        {"where": "1=1"},
    ],
)
def test_a_binding_that_could_widen_a_slice_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        PostgresBinding.parse(CLINIC | {"columns": ["id"]} | change)
    assert refused.value.field.startswith("/binding")


def test_filter_literals_are_escaped(world: World) -> None:
    hostile = "x' OR '1'='1"
    binding = PostgresBinding.parse(CLINIC | {"columns": ["id"], "rows": [["name", "=", hostile]]})
    with world.admin() as admin:
        assert admin.execute(binding.select(look(admin, binding).types)).fetchall() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"table": "nowhere"}, "no such table"),
        ({"columns": ["id", "salary"]}, "no column salary"),
        ({"rows": [["age", "=", "old"]]}, "another type"),
    ],
)
def test_impossible_slice_fails_with_the_reason(world: World, change: dict[str, Any], said: str) -> None:
    from broker.kinds.postgres.slices import register

    binding = CLINIC | {"columns": ["id"], "rows": []} | change
    with pytest.raises(Invalid, match=said):
        register(vault_of(world.settings, "setup"), "sl_01aaaaaaaaaaaaaaaaaaaaaaaa", binding)


def test_slices_registered_at_the_same_moment_do_not_refuse_each_other(world: World) -> None:
    """Each changes the rights of the same schema and database; PostgreSQL refuses the second and lets nobody wait."""
    from broker.kinds.postgres.slices import register, unregister

    binding = CLINIC | {"columns": ["id"], "rows": []}
    together = threading.Barrier(4)

    def come_and_go(_: int) -> None:
        vault, id_ = vault_of(world.settings, "setup"), new_id("sl")
        for _ in range(6):
            together.wait(30)
            register(vault, id_, binding)
            unregister(vault, id_, binding)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(come_and_go, range(4))) == [None] * 4
