"""What a guest with a MariaDB session can do to keep it, or to hinder others: it ends all the same, and nobody waits.

`docs/connect-mariadb.md` has the whole table; statements here are those that take a lock, hold a snapshot or spend
something, held open at the moment of ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import psycopg
import pymysql
import pytest
from sqlalchemy import select

from broker.base.database import clock
from broker.kinds.discovery import kinds
from broker.kinds.mariadb.ending import CONFIRMED, CUT
from broker.kinds.values import LeaseToEnd
from broker.leases.issuing import Handed
from broker.leases.sweeping import HANDS
from broker.models import Lease
from broker.worker.worker import Worker
from tests.support.freezing import freeze
from tests.support.mariadb import WARD_EVERY_ROW, Mariadb, Session, ask, ward_guest
from tests.support.waiting import until
from tests.support.world import World

KIND = kinds["mariadb"]
FOREVER = "SET SESSION max_statement_time = 0"
NUMBERS = "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"

# What a session does first, and what it is still doing when it is ended. {view} is what it reads, {row} one id there.
HELD: dict[str, tuple[list[str], str]] = {
    "many named locks": (
        ["SET SESSION max_recursive_iterations = 1000000"],
        f"{NUMBERS} SELECT MAX(GET_LOCK(CONCAT('l', i), 0)) + SLEEP(1000) FROM n",
    ),
    "open transaction with locked rows": (["BEGIN", "SELECT * FROM {view} WHERE id = {row} FOR UPDATE"], ""),
    "shared row locks": (["BEGIN", "SELECT * FROM {view} WHERE id = {row} LOCK IN SHARE MODE"], ""),
    "metadata lock": (["SET SESSION lock_wait_timeout = 31536000", "BEGIN", "SELECT COUNT(*) FROM {view}"], ""),
    "rights on itself": (["GRANT PROXY ON CURRENT_USER() TO CURRENT_USER()", "SET DEFAULT ROLE NONE", "BEGIN"], ""),
    "snapshot": (
        ["SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"],
        "",
    ),
    "prepared XA transaction": (
        ["XA START 'held'", "SELECT * FROM {view} WHERE id = {row} FOR UPDATE", "XA END 'held'", "XA PREPARE 'held'"],
        "",
    ),
    "own password changed": (["BEGIN", "SET PASSWORD = PASSWORD('another-password')"], ""),
    "sleeping": ([FOREVER], "SELECT SLEEP(1000000)"),
    "computing": ([FOREVER], "SELECT BENCHMARK(1000000000000, SHA2('a', 512))"),
    "huge sort": (
        [FOREVER],
        "SELECT a.id FROM {view} a, {view} b, {view} c, {view} d ORDER BY a.age * b.age + c.id * d.id",
    ),
    "huge temporary table": (
        [FOREVER],
        "SELECT COUNT(DISTINCT a.id, b.id, c.id, d.id) FROM {view} a, {view} b, {view} c, {view} d",
    ),
    "join of many tables": (
        [FOREVER, "SET SESSION optimizer_search_depth = 62", "SET SESSION optimizer_prune_level = 0"],
        "SELECT COUNT(*) FROM " + ", ".join(f"{{view}} a{i}" for i in range(50)),
    ),
    "endless recursion": (
        [FOREVER, "SET SESSION max_recursive_iterations = 4294967295"],
        "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
    ),
    "memory of variables": ([f"SET @a{i} = REPEAT('a', 4000000)" for i in range(10)], "SELECT SLEEP(1000000)"),
    "waiting for the binary log": ([FOREVER], "SELECT MASTER_GTID_WAIT('0-1-999999999')"),
    "a block that catches everything": (
        [FOREVER],
        "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;"
        " WHILE TRUE DO SELECT SLEEP(1) INTO @ignored; END WHILE; END",
    ),
}
# Computes for many seconds without looking whether it was killed; with longer texts it would be hours.
UNHEEDING = "SELECT LOCATE(CONCAT(REPEAT('a', 100000), 'b'), REPEAT('a', 400000))"
REFUSED = [
    "LOCK TABLES {view} READ",
    "FLUSH TABLES WITH READ LOCK",
    "FLUSH TABLES {view} WITH READ LOCK",
    "FLUSH PRIVILEGES",
    "BACKUP STAGE START",
    "BACKUP LOCK {view}",
    "ALTER USER CURRENT_USER() WITH MAX_USER_CONNECTIONS 0",
    "ALTER USER CURRENT_USER() WITH MAX_STATEMENT_TIME 0",
    "CREATE TEMPORARY TABLE guestkey_slices.t (i int)",
    "CREATE TEMPORARY TABLE test.t (i int)",
    "CREATE PROCEDURE guestkey_slices.p() SELECT 1",
    "HANDLER {view} OPEN",
    "SELECT 1 INTO OUTFILE '/tmp/guestkey-refused'",
    "SHOW CREATE VIEW {view}",
    "SET GLOBAL max_connections = 1",
    "ANALYZE TABLE {view}",
    "SHOW BINLOG EVENTS",
    "LOCK TABLES {view} WRITE",
    "FLUSH LOGS",
    "FLUSH USER_RESOURCES",
    "OPTIMIZE TABLE {view}",
    "SET SESSION sql_log_bin = 0",
    "SET SESSION max_user_connections = 100",
    "CREATE EVENT guestkey_slices.e ON SCHEDULE EVERY 1 SECOND DO SELECT 1",
    "CREATE SEQUENCE guestkey_slices.s",
    "CREATE DATABASE guestkey_refused",
    "CREATE ROLE guestkey_refused",
    "GRANT SELECT ON {view} TO guestkey_watch@'%'",
    "GRANT PROXY ON CURRENT_USER() TO guestkey_refused@'%' IDENTIFIED BY 'x'",
    "GRANT PROXY ON CURRENT_USER() TO guestkey_watch@'%' IDENTIFIED BY 'x'",
    "SET PASSWORD FOR guestkey_watch@'%' = PASSWORD('x')",
    "CALL guestkey_ops.kill_guest('gk_x')",
    "CALL guestkey_ops.guests('')",
]


def _guest(world: World) -> Handed:
    signed, dataset = ward_guest(world, WARD_EVERY_ROW)
    return world.issue(signed, dataset)


def _end(world: World, handed: Handed) -> str:
    lease = world.lease(handed.lease.id)
    return KIND.end(world.ender.vault, LeaseToEnd(lease.id, lease.handle, WARD_EVERY_ROW, lease.backend_lease_id))


@dataclass
class Held:
    """A guest's session, and the thread in which it does something."""

    session: Session
    busy: threading.Thread

    def is_over(self) -> bool:
        """Whether the session answers no more, once what it was doing was cut."""
        self.busy.join(60)
        return not self.busy.is_alive() and _is_over(self.session)


@contextmanager
def _holding(ward: Mariadb, handed: Handed, first: list[str], last: str) -> Iterator[Held]:
    """Let a guest do something and, in a thread, be doing something."""
    assert handed.values is not None
    session = ward.guest(handed.values)
    view = handed.values["relation"]
    for statement in first:
        ask(session, statement.replace("{view}", view))
    busy = threading.Thread(target=_go_on, args=(session, last.replace("{view}", view)), daemon=True)
    busy.start()
    if last:
        until(lambda: _statements(ward, _thread_of(session)), what="the statement's start")
    try:
        yield Held(session, busy)
    finally:
        busy.join(60)
        if session.open:
            session.close()


def _go_on(session: Session, statement: str) -> None:
    with suppress(pymysql.Error, OSError):
        if statement:
            ask(session, statement)


def _replaced(statement: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        statement = statement.replace(name, value)
    return statement


def _thread_of(session: Session) -> int:
    """The number that the server knows a session by."""
    return int(session.thread_id())  # type: ignore[no-untyped-call]


def _statements(ward: Mariadb, number: int) -> int:
    return len(ward.ask("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = %s AND COMMAND <> 'Sleep'", number))


def _is_over(session: Session) -> bool:
    """Whether a session answers no more."""
    try:
        ask(session, "SELECT 1")
    except (pymysql.Error, OSError):
        return True
    return False


@pytest.mark.parametrize("what", HELD)
def test_open_work_at_the_time_of_ending_delays_no_end(world: World, ward: Mariadb, what: str) -> None:
    handed = _guest(world)
    first, last = HELD[what]
    with _holding(ward, handed, [statement.replace("{row}", "1") for statement in first], last) as held:
        assert _end(world, handed) == CONFIRMED
        assert held.is_over()
    # Rows it had locked are free, whatever became of its transaction.
    ward.ask("UPDATE clinic.patients SET age = age WHERE id < 50")


def test_combined_attacks_end_and_others_are_issued_credentials(world: World, ward: Mariadb) -> None:
    guests = [(_guest(world), what) for what in HELD for _ in range(2)]
    held: list[Held] = []
    with ExitStack() as sessions, ThreadPoolExecutor(8) as pool:
        for row, (handed, what) in enumerate(guests, start=1):
            # One session alone may have prepared a transaction of one name, or have locked a row.
            first, last = HELD[what]
            names = {"'held'": f"'{handed.lease.id}'", "{row}": str(row)}
            own = [_replaced(statement, names) for statement in first]
            held.append(sessions.enter_context(_holding(ward, handed, own, last)))
        endings = [pool.submit(_end, world, handed) for handed, _ in guests]
        meanwhile = _guest(world)
        assert {ending.result(120) for ending in endings} <= {CONFIRMED, CUT}
        assert all(one.is_over() for one in held)
    assert _end(world, meanwhile) == CONFIRMED


def test_unkillable_function_returns_no_result(world: World, ward: Mariadb) -> None:
    """Its connection is cut, its user gone; the server computes on, which only a restart of it would stop."""
    handed, other = _guest(world), _guest(world)
    with _holding(ward, handed, [FOREVER], UNHEEDING) as held:
        assert _end(world, handed) in (CUT, CONFIRMED)
        assert _end(world, other) == CONFIRMED, "nobody else waits for it"
        assert held.is_over()
    assert not ward.ask("SELECT 1 FROM mysql.global_priv WHERE User LIKE %s", f"gk%{handed.lease.id}")


def test_guest_killing_its_own_statements_is_not_confirmed_ended(world: World, ward: Mariadb) -> None:
    """The server shows it like a connection that was killed."""
    handed = _guest(world)
    assert handed.values is not None
    killer = ward.guest(handed.values)
    with _holding(ward, handed, [FOREVER], UNHEEDING) as held:
        ask(killer, f"KILL QUERY {_thread_of(held.session)}")
        assert _end(world, handed) in (CUT, CONFIRMED)
        assert held.is_over() and _is_over(killer)


def test_ending_works_while_guests_hold_every_connection(world: World, ward: Mariadb) -> None:
    """The worker's log-in has a port of its own, which guests may not be told and could not use up."""
    guests = [_guest(world) for _ in range(5)]
    (most,) = ward.ask("SELECT @@max_connections")[0]
    sessions: list[Session] = []
    ward.ask("SET GLOBAL max_connections = 12")
    try:
        with pytest.raises(pymysql.OperationalError, match="Too many connections"):
            for handed in guests * 3:
                assert handed.values is not None
                sessions.append(ward.guest(handed.values))
        assert {_end(world, handed) for handed in guests} == {CONFIRMED}
        assert all(_is_over(session) for session in sessions)
    finally:
        ward.ask(f"SET GLOBAL max_connections = {most}")


def test_guest_that_prepared_every_statement_is_ended_and_issuing_goes_on(world: World, ward: Mariadb) -> None:
    """While it has them OpenBao, which prepares what it runs, makes nobody a user there: ending needs none."""
    handed, other = _guest(world), _guest(world)
    (most,) = ward.ask("SELECT @@max_prepared_stmt_count")[0]
    ward.ask("SET GLOBAL max_prepared_stmt_count = 20")
    try:
        assert handed.values is not None
        session = ward.guest(handed.values)
        with pytest.raises(pymysql.OperationalError, match="max_prepared_stmt_count"):
            for number in range(21):
                ask(session, f"PREPARE s{number} FROM 'SELECT 1'")
        assert _end(world, other) == CONFIRMED, "nobody else waits for it"
        assert _end(world, handed) == CONFIRMED
        assert _is_over(session)
        assert _end(world, _guest(world)) == CONFIRMED
    finally:
        ward.ask(f"SET GLOBAL max_prepared_stmt_count = {most}")


def test_named_lock_shared_by_two_guests_delays_no_end(world: World, ward: Mariadb) -> None:
    """Names of locks are the whole server's: one has it, the other waits for it, for ever."""
    holder, waiter = _guest(world), _guest(world)
    with _holding(ward, holder, ["SELECT GET_LOCK('wanted', 0)"], "") as held:
        with _holding(ward, waiter, [FOREVER], "SELECT GET_LOCK('wanted', 1000000)") as waiting:
            assert _end(world, waiter) == CONFIRMED
            assert waiting.is_over()
        assert not _is_over(held.session), "nobody else's session ends with it"
        assert _end(world, holder) == CONFIRMED
        assert held.is_over()


def test_guest_cannot_kill_others_by_user_name(world: World, ward: Mariadb) -> None:
    """The server takes the statement, and looks only at connections that are the guest's own."""
    handed, other = _guest(world), _guest(world)
    assert handed.values is not None and other.values is not None
    with ward.guest(handed.values) as session, ward.guest(other.values) as innocent:
        for name in (other.values["username"], "guestkey_watch", "root"):
            ask(session, f"KILL USER {name}")
        assert not _is_over(innocent)
    assert {_end(world, one) for one in (handed, other)} == {CONFIRMED}


def _being_ended(world: World) -> bool:
    """Whether the worker is ending something now; what cannot end before its own time is left to that."""
    with world.database.transaction() as tx:
        due = (Lease.state == "revoking") & (Lease.next_attempt_at <= clock(tx))
        return tx.scalar(select(Lease.id).where(due).limit(1)) is not None


def test_hanging_openbao_delays_no_end(world: World, ward: Mariadb, worker: Worker) -> None:
    """More guests than the worker has hands; OpenBao is told of them later."""
    guests = [_guest(world) for _ in range(HANDS + 4)]
    sessions = [ward.guest(one.values) for one in guests if one.values is not None]
    # As after the worker's first round: it has read its own log-in, and ended what other tests left.
    world.ender.vault.secret("connections/ward/watch", remembered=True)
    until(lambda: not _being_ended(world), what="the end of what other tests left")
    freeze(world.stack.bao)
    try:
        began = time.monotonic()
        # All that the worker does at times of its own is due now, and asks OpenBao.
        worker._due.clear()
        for one in guests:
            world.change(Lease, one.lease.id, expires_at=world.now())
        until(lambda: all(_is_over(session) for session in sessions), what="the end of every session")
        assert time.monotonic() - began < KIND.ending.open_sessions
        for one in guests:
            assert world.wait_for(one.lease.id, "expired").confirmed_by == CONFIRMED
    finally:
        freeze(world.stack.bao, thaw=True)
    for session in sessions:
        if session.open:
            session.close()


def test_hanging_server_blocks_one_worker_thread(world: World, ward: Mariadb, worker: Worker) -> None:
    guests, elsewhere = [_guest(world) for _ in range(3 * HANDS)], world.issue(*world.guest()[:2])
    with ward.frozen(), world.connect(elsewhere) as other:
        for one in guests:
            world.change(Lease, one.lease.id, expires_at=world.now())
        until(
            lambda: all(world.lease(one.lease.id).claimed_until for one in guests), what="the worker's taking them on"
        )
        began = time.monotonic()
        world.change(Lease, elsewhere.lease.id, expires_at=world.now())
        with pytest.raises(psycopg.OperationalError):
            while True:
                other.execute("SELECT pg_sleep(0.05)")
        assert time.monotonic() - began < kinds["postgres"].ending.open_sessions
    for one in guests:
        world.wait_for(one.lease.id, "expired", seconds=90)


def test_constant_password_changes_delay_no_end(world: World, ward: Mariadb) -> None:
    handed, others = _guest(world), [_guest(world) for _ in range(3)]
    stopping = threading.Event()

    def change() -> None:
        assert handed.values is not None
        with suppress(pymysql.Error, OSError):
            session = ward.guest(handed.values)
            while not stopping.is_set():
                ask(session, f"SET PASSWORD = PASSWORD('{handed.values['password']}')")

    threads = [threading.Thread(target=change, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert {_end(world, other) for other in others} == {CONFIRMED}
        assert _end(world, handed) == CONFIRMED
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture(scope="module")
def refused(ward: Mariadb) -> Iterator[list[Handed]]:
    """Keeps one guest for all statements that are refused."""
    yield []


@pytest.mark.parametrize("statement", REFUSED)
def test_statement_a_guest_may_not_run(world: World, ward: Mariadb, refused: list[Handed], statement: str) -> None:
    if not refused:
        refused.append(_guest(world))
    values = refused[0].values
    assert values is not None
    with ward.guest(values) as session, pytest.raises(pymysql.Error):
        ask(session, statement.replace("{view}", values["relation"]))
