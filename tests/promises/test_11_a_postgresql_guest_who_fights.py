"""Promise 11: access is taken back for certain, even from a guest who fights with all PostgreSQL lets it do."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from broker.base.settings import Settings
from broker.embedded.stack import Stack
from broker.kinds.names import role_of
from broker.kinds.postgres.kind import CONFIRMED
from broker.kinds.postgres.sessions import end_overlong, watch_session
from broker.kinds.postgres.slices import role_definition
from broker.runtime.parts import Parts, vault_of
from broker.worker import slice_registration
from tests.support.fighter import DECLARED_SECONDS, KIND, Fighter, end, permissive
from tests.support.fighting import HELD_OPEN, WITHOUT_TRANSACTION, hold, reads, relocking, run
from tests.support.waiting import until
from tests.support.world import World

FORBIDDEN = [
    "SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 10) i",
    "SELECT pg_try_advisory_lock_shared(1, 2)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))",
    "SELECT pg_logical_emit_message(true, 'x', ''::bytea)",
    "SELECT pg_notify('x', 'y')",
    "SELECT pg_export_snapshot()",
    "SELECT txid_current()",
    "SELECT pg_current_xact_id()",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {other}",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {other} GRANT SELECT ON TABLES TO {self}",
    "SET temp_file_limit = '-1'",
    "ALTER ROLE {self} SET temp_file_limit = '-1'",
    "SET log_min_messages = 'log'",
    "SET log_min_error_statement = 'error'",
    "RESET log_min_messages",
    "SELECT set_config('log_min_messages', 'log', true)",
    "ALTER ROLE {self} SET log_min_messages = 'log'",
    "ALTER ROLE {self} RESET log_min_messages",
    "SET SESSION AUTHORIZATION guestkey_minter",
    "SET ROLE {group}",
    "GRANT {self} TO {other}",
    "GRANT {group} TO {other}",
    "GRANT SELECT ON {view} TO {other}",
    "COMMENT ON ROLE {other} IS 'x'",
    "COMMENT ON ROLE {self} IS 'x'",
    "SECURITY LABEL ON ROLE {self} IS 'x'",
    "ALTER ROLE {other} PASSWORD 'x'",
    "ALTER ROLE {self} VALID UNTIL 'infinity'",
    "ALTER ROLE {self} CONNECTION LIMIT -1",
    "LOCK TABLE pg_authid IN ACCESS SHARE MODE",
    "LOCK TABLE {view} IN SHARE MODE",
    "LOCK TABLE pg_roles IN EXCLUSIVE MODE",
    "SELECT * FROM {view} FOR KEY SHARE",
    "SELECT * FROM {view} FOR SHARE",
    "CREATE TEMP TABLE t (x int)",
    "CREATE TABLE slices.t (x int)",
    "CREATE SCHEMA s",
    "SELECT pg_create_physical_replication_slot('x', true)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guestkey_minter'",
    "SELECT guestkey_ops.end_blockers()",
    "PREPARE TRANSACTION 'x'",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "CHECKPOINT",
    "VACUUM pg_class",
    "REASSIGN OWNED BY {self} TO {other}",
    "DROP OWNED BY {self}",
]

NOT_HERE = (
    psycopg.errors.ObjectNotInPrerequisiteState,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.ActiveSqlTransaction,
    psycopg.errors.WrongObjectType,
)


@pytest.fixture(scope="module")
def fighting(stack: Stack, settings: Settings, parts: Parts, ender: Parts) -> Fighter:
    """A guest whose statements are refused; it is never ended."""
    return Fighter(World(stack, settings, parts, ender))


@pytest.fixture(scope="module")
def other(stack: Stack, settings: Settings, parts: Parts, ender: Parts) -> Fighter:
    """Another guest."""
    return Fighter(World(stack, settings, parts, ender))


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_guest_statement_is_refused(world: World, fighting: Fighter, other: Fighter, statement: str) -> None:
    with fighting.session() as session:
        session.execute("BEGIN")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported, *NOT_HERE)):
            session.execute(statement.format(**(fighting.names | {"other": other.user})))


@pytest.mark.parametrize("held", HELD_OPEN)
def test_open_transactions_and_locks_delay_no_end(world: World, held: str) -> None:
    with permissive(world), ExitStack() as open_sessions:
        other = Fighter(world)
        fighter = Fighter(world, other=other.user)
        sessions = [open_sessions.enter_context(fighter.session()) for _ in range(2)]
        hold(sessions[0], fighter.statements(held))
        assert (sessions[0].info.transaction_status == TransactionStatus.IDLE) == (held in WITHOUT_TRANSACTION)
        second = ThreadPoolExecutor(1)
        # It waits for the first, as an accomplice would who takes over what that one lets go.
        waiting = second.submit(run, sessions[1], fighter.statements(held))
        innocent = open_sessions.enter_context(other.session())
        said, took = end(world, [other, fighter])
        assert said == [CONFIRMED] * 2
        assert took < DECLARED_SECONDS
        waiting.result(60)
        second.shutdown()
        assert not any(reads(session, fighter.view) for session in (*sessions, innocent))
    assert world.roles_of(fighter.handed.lease.id) == world.roles_of(other.handed.lease.id) == 0


def test_fighting_guest_does_not_delay_ending_others(world: World) -> None:
    """Only the innocent one ends; whoever blocks that loses the session it blocks with, and keeps its credential."""
    with permissive(world):
        other = Fighter(world)
        fighter = Fighter(world, other=other.user)
        with fighter.session() as blocking, other.session() as innocent:
            hold(blocking, fighter.statements("default rights for another"))
            said, took = end(world, [other])
            assert (said, took < DECLARED_SECONDS) == ([CONFIRMED], True)
            assert not reads(innocent, other.view)
        with fighter.session() as again:
            assert reads(again, fighter.view)
        assert end(world, [fighter])[0] == [CONFIRMED]


@pytest.mark.parametrize("held", ["own password", "longer life refused", "default rights for another"])
def test_reconnecting_and_locking_in_a_loop_is_ended(world: World, held: str) -> None:
    with permissive(world):
        other = Fighter(world)
        fighter = Fighter(world, other=other.user)
        with relocking(fighter.log_in, fighter.statements(held)) as sessions:
            said, took = end(world, [fighter, other])
            assert said == [CONFIRMED] * 2
            assert took < DECLARED_SECONDS
            assert sessions and not any(reads(session, fighter.view) for session in sessions)


def test_fifty_guests_end_in_time_beside_a_fighting_one(world: World) -> None:
    fighters = [Fighter(world) for _ in range(11)]
    fighters += [Fighter(world, beside=fighters[n % 10 + 1]) for n in range(40)]
    with ExitStack() as open_sessions:
        for fighter in fighters[1:]:
            hold(open_sessions.enter_context(fighter.session()), fighter.statements("own password"))
        sessions = open_sessions.enter_context(relocking(fighters[0].log_in, fighters[0].statements("own password")))
        said, took = end(world, fighters)
        assert said == [CONFIRMED] * len(fighters)
        assert took < DECLARED_SECONDS
        assert not any(reads(session, fighters[0].view) for session in sessions)


def test_openbao_ends_a_guest_who_keeps_locking_its_own_row(world: World) -> None:
    fighter = Fighter(world)
    with relocking(fighter.log_in, fighter.statements("own password")) as sessions:
        began = time.monotonic()
        KIND.settle(vault_of(world.settings, "ender"), fighter.to_end())
        assert time.monotonic() - began < DECLARED_SECONDS
        assert world.roles_of(fighter.handed.lease.id) == 0
        assert not any(reads(session, fighter.view) for session in sessions)


def test_guests_of_earlier_slices_are_ended_by_current_statements(world: World) -> None:
    fighter = Fighter(world)
    setup, slice_id = vault_of(world.settings, "setup"), world.slice_id(fighter.dataset)
    earlier = role_definition("data", fighter.names["group"]) | {"revocation_statements": ["SELECT 1"]}
    setup.write_role("database", role_of(slice_id), earlier)
    # As after an upgrade: this version's statements were lent to nobody yet.
    with world.admin("guestkey") as admin:
        admin.execute("DELETE FROM guestkey.chore WHERE name LIKE 'lend-%'")
    assert slice_registration.refresh_statements(world.ender, setup) > 0
    assert slice_registration.refresh_statements(world.ender, setup) == 0, "once is enough"
    with relocking(fighter.log_in, fighter.statements("own password")):
        KIND.settle(vault_of(world.settings, "ender"), fighter.to_end())
        assert world.roles_of(fighter.handed.lease.id) == 0


OVERLONG = {
    "a statement": ["SET statement_timeout = 0", "SELECT pg_sleep(600)"],
    "a transaction": ["SET idle_in_transaction_session_timeout = 0", "BEGIN", "SELECT 1"],
    "locks of savepoints": [
        "BEGIN",
        "SELECT 1",
        *(f"SAVEPOINT s{n}; ALTER ROLE {{self}} SET work_mem = '{n + 64}kB'" for n in range(400)),
    ],
}


@pytest.mark.parametrize("held", OVERLONG)
def test_long_queries_and_transactions_are_ended(world: World, held: str) -> None:
    fighter, patient = Fighter(world), Fighter(world)
    all_limits: dict[str, dict[str, Any]] = {
        "a statement": {"statement": timedelta(milliseconds=1)},
        "a transaction": {"transaction": timedelta(milliseconds=1)},
        "locks of savepoints": {"locks": 300},
    }
    limits = all_limits[held]
    with fighter.session() as session, patient.session() as other, watch_session(world.ender.vault, "data") as watch:
        other.execute("SELECT 1")
        fighting = threading.Thread(target=run, args=(session, [one.format(**fighter.names) for one in OVERLONG[held]]))
        fighting.start()
        until(lambda: fighter.user in end_overlong(watch, **limits), seconds=60)
        fighting.join(60)
        assert not reads(session, fighter.view)
        assert reads(other, patient.view)


def test_worker_checks_guest_limits(
    world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fighter = Fighter(world)
    monkeypatch.setattr("broker.kinds.postgres.kind.end_overlong", partial(end_overlong, locks=0))
    with fighter.session() as session, world.admin() as admin:
        session.execute("BEGIN; LOCK TABLE pg_roles IN ACCESS SHARE MODE")
        request.getfixturevalue("worker")
        still = "SELECT FROM pg_stat_activity WHERE usename = %s"
        until(lambda: not admin.execute(still, (fighter.user,)).fetchall(), seconds=60, what="the worker's look")
        assert not reads(session, fighter.view)
    assert world.lease(fighter.handed.lease.id).state == "active", "its session, and not its lease"


def test_exhausted_connections_do_not_block_watch_and_openbao(world: World) -> None:
    fighters = [Fighter(world)]
    with ExitStack() as open_sessions:
        with world.admin() as admin:
            # As many guests as it takes would say the same: here one may log in without limit.
            admin.execute(f'ALTER ROLE "{fighters[0].user}" CONNECTION LIMIT -1')
        with pytest.raises(psycopg.OperationalError, match="remaining connection slots"):
            for _ in range(300):
                open_sessions.enter_context(fighters[0].session())
        assert world.issue(fighters[0].signed, fighters[0].dataset).values is not None
        said, took = end(world, fighters)
        assert (said, took < DECLARED_SECONDS) == ([CONFIRMED], True)
