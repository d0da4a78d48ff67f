"""Promise 11: a full disk of one data server keeps nobody in there, and delays nobody's end and issuing elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import psycopg
import pymysql
import pytest
from sqlalchemy import update

from broker.base.errors import BackendDown
from broker.base.settings import Settings
from broker.embedded import children
from broker.embedded.openbao import Operator
from broker.embedded.postgres import DATA, Postgres
from broker.kinds.discovery import kinds
from broker.kinds.mariadb.connection import MariadbConnection
from broker.kinds.postgres.connection import PostgresConnection
from broker.kinds.values import NotEnded
from broker.leases.issuing import Handed
from broker.models import Lease, Slice
from broker.worker import guest_limits
from broker.worker.slice_registration import REMOVED
from broker.worker.worker import Worker
from tests.support.data import make_clinic
from tests.support.disks import fill, make_room, small_disk
from tests.support.mariadb import WARD_EVERY_ROW, Mariadb, ask, mariadb, ward_guest
from tests.support.waiting import until
from tests.support.world import DEIDENTIFIED, Signed, World

PLACES = {"postgres": "small-postgres", "mariadb": "small-mariadb"}
Session: TypeAlias = "psycopg.Connection[tuple[Any, ...]] | pymysql.Connection[Any]"
# What both kinds declare, and what a worker takes to notice.
PROMISED_SECONDS = 5.0


@pytest.fixture
def disk() -> Iterator[Path]:
    """The disk of a data server."""
    with TemporaryDirectory(prefix="guestkey-disk-", ignore_cleanup_errors=True) as name:
        # Servers do not run as root, and are to reach it.
        Path(name).chmod(0o711)
        with small_disk(Path(name), "size=200m,mode=0711"):
            yield Path(name)


@contextmanager
def forgotten(world: World) -> Iterator[None]:
    """Once the server is gone, what is on record of it names one that stays: no other test waits for it."""
    try:
        yield
    finally:
        with world.database.transaction() as tx:
            here = Slice.binding["connection"].astext.in_(PLACES.values())
            gone = {"kind": "postgres", "binding": dict(DEIDENTIFIED), "state": "retired", "state_detail": REMOVED}
            tx.execute(update(Slice).where(here).values(**gone))


@pytest.fixture
def small_postgres(disk: Path, world: World, settings: Settings) -> Iterator[Postgres]:
    """A second data server."""
    server = Postgres(disk / "postgresql", children.free_port(), DATA)
    server.start()
    place = {"host": "127.0.0.1", "port": server.port, "dbname": "data", "sslmode": "disable"}
    try:
        make_clinic(server.url("postgres", "data"))
        Operator(world.stack.bao).connect_database(server, PLACES["postgres"])
        settings.connections("postgres")[PLACES["postgres"]] = PostgresConnection.model_validate(place)
        with forgotten(world):
            yield server
    finally:
        settings.connections("postgres").pop(PLACES["postgres"], None)
        server.stop()


@pytest.fixture
def small_mariadb(disk: Path, world: World, settings: Settings) -> Iterator[Mariadb]:
    """Another MariaDB, with all that it writes on the small disk."""
    with mariadb(world.stack.bao, PLACES["mariadb"], disk) as server:
        settings.connections("mariadb")[PLACES["mariadb"]] = MariadbConnection.model_validate(server.place)
        try:
            with forgotten(world):
                yield server
        finally:
            settings.connections("mariadb").pop(PLACES["mariadb"], None)


def guest_at(world: World, kind: str) -> tuple[Signed, Any]:
    """Somebody with a grant at the server on the small disk."""
    if kind == "mariadb":
        return ward_guest(world, WARD_EVERY_ROW | {"connection": PLACES[kind]})
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, slices={"deidentified": DEIDENTIFIED | {"connection": PLACES[kind]}})
    world.grant(dataset, signed)
    return signed, dataset


def log_in(server: Postgres, handed: Handed) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of a guest of PostgreSQL on the small disk."""
    assert handed.values is not None
    user, password = handed.values["username"], handed.values["password"]
    url = f"postgresql://{user}:{password}@127.0.0.1:{server.port}/data"
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def _admin(server: Postgres) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(server.url("postgres", "data"), autocommit=True)


class Sessions(ExitStack):
    """Guests' sessions, closed when the test is over, if nobody has ended them."""

    def keep(self, session: Session) -> Session:
        """One more."""
        self.callback(_close, session)
        return session


def _close(session: Session) -> None:
    if isinstance(session, psycopg.Connection) or session.open:
        session.close()


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    """What guests have open."""
    with Sessions() as kept:
        yield kept


def is_over(session: Session) -> bool:
    """Whether it answers no more."""
    try:
        with session.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (psycopg.Error, pymysql.Error, OSError):
        return True
    return False


def over(world: World, *handed: Handed) -> None:
    """Their lives are over."""
    for one in handed:
        world.change(Lease, one.lease.id, expires_at=world.now())


def use_up(server: Postgres) -> None:
    """Go on writing until PostgreSQL can begin no transaction that writes: full is when the last page is."""
    with _admin(server) as admin:
        admin.execute("SET synchronous_commit = off")
        with pytest.raises(psycopg.errors.DiskFull):
            admin.execute("DO $$ BEGIN LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")


def use_up_binary_log(server: Mariadb, handed: Handed) -> threading.Thread:
    """A guest goes on writing to it until the server waits for room, its table of accounts locked."""
    assert handed.values is not None
    session, password = server.guest(handed.values), handed.values["password"]

    def write() -> None:
        with suppress(pymysql.Error, OSError):
            while True:
                ask(session, f"SET PASSWORD = PASSWORD('{password}')")

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    waiting = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'Waiting for someone to free space'"
    until(lambda: server.ask(waiting), what="the server's waiting for room")
    return writing


def test_guest_filling_the_postgresql_disk_ends_in_time(
    sessions: Sessions, world: World, worker: Worker, disk: Path, small_postgres: Postgres
) -> None:
    signed, dataset = guest_at(world, "postgres")
    handed, elsewhere = world.issue(signed, dataset), world.issue(*world.guest()[:2])
    session, other = sessions.keep(log_in(small_postgres, handed)), sessions.keep(world.connect(elsewhere))
    fill(disk)
    use_up(small_postgres)
    assert not is_over(session), "reading needs no room"
    began = time.monotonic()
    over(world, handed, elsewhere)
    until(lambda: is_over(session), seconds=2 * PROMISED_SECONDS)
    world.wait_for(elsewhere.lease.id, "expired")
    assert time.monotonic() - began < 2 * PROMISED_SECONDS
    assert is_over(other)
    assert "still shows 1 role" in world.wait_for(handed.lease.id, "revoke_failed").last_error
    with pytest.raises(BackendDown):
        world.issue(signed, dataset)
    world.issue(*world.guest()[:2])
    # The door is a write: whoever comes in again is put out again, and VALID UNTIL lies a minute after the lease.
    again = sessions.keep(log_in(small_postgres, handed))
    until(lambda: is_over(again), what="the end of who came in again")
    with _admin(small_postgres) as admin:
        query = "SELECT rolvaliduntil - clock_timestamp() FROM pg_roles WHERE rolname LIKE %s"
        ((valid,),) = admin.execute(query, (f"gk%{handed.lease.id}",)).fetchall()
    assert valid < handed.lease.expires_at - world.now() + timedelta(seconds=75)
    make_room(disk)
    world.wait_for(handed.lease.id, "expired", seconds=60)
    with pytest.raises(psycopg.OperationalError):
        log_in(small_postgres, handed)


def test_guest_filling_the_mariadb_disk_ends_in_time(
    sessions: Sessions, world: World, worker: Worker, disk: Path, small_mariadb: Mariadb
) -> None:
    signed, dataset = guest_at(world, "mariadb")
    handed, elsewhere = world.issue(signed, dataset), world.issue(*world.guest()[:2])
    writer, first = (world.issue(*guest_at(world, "mariadb")) for _ in range(2))
    assert handed.values is not None and first.values is not None
    session, other = sessions.keep(small_mariadb.guest(handed.values)), sessions.keep(world.connect(elsewhere))
    fill(disk)
    beside = sessions.keep(small_mariadb.guest(first.values))
    writing = use_up_binary_log(small_mariadb, writer)
    assert not is_over(session), "reading needs no room"
    # While the table of accounts is held, and nobody has ended who holds it.
    ending = kinds["mariadb"]
    came_of = ending.end_many(world.ender.vault, [world.to_end(first.lease.id)])
    assert isinstance(came_of[first.lease.id], NotEnded)
    assert is_over(beside)
    began = time.monotonic()
    over(world, handed, writer, first, elsewhere)
    until(lambda: is_over(session), seconds=2 * PROMISED_SECONDS)
    world.wait_for(elsewhere.lease.id, "expired")
    assert time.monotonic() - began < 2 * PROMISED_SECONDS
    assert is_over(other)
    assert "MariaDB" in world.wait_for(handed.lease.id, "revoke_failed").last_error
    world.issue(*world.guest()[:2])
    # Where locking the account has got as far as the server's memory, nobody comes in again.
    with suppress(pymysql.OperationalError):
        again = sessions.keep(small_mariadb.guest(handed.values))
        until(lambda: is_over(again), what="the end of who came in again")
    make_room(disk)
    # The server looks once a minute whether there is room.
    for one in (handed, writer, first):
        world.wait_for(one.lease.id, "expired", seconds=150)
    writing.join(60)
    assert not writing.is_alive()
    with pytest.raises(pymysql.OperationalError):
        small_mariadb.guest(handed.values)


def test_full_wal_disk_stops_postgresql_and_every_session(
    sessions: Sessions, world: World, worker: Worker, disk: Path, small_postgres: Postgres
) -> None:
    """Nobody is let in, nothing is confirmed, and once it is started again the end goes on."""
    handed = world.issue(*guest_at(world, "postgres"))
    session = sessions.keep(log_in(small_postgres, handed))
    fill(disk)
    with pytest.raises(psycopg.OperationalError), _admin(small_postgres) as admin:
        while True:
            admin.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
    until(lambda: is_over(session), what="the end of its session")
    over(world, handed)
    assert "does not answer" in world.wait_for(handed.lease.id, "revoke_failed", seconds=30).last_error
    make_room(disk)
    small_postgres.stop()
    small_postgres.start()
    world.wait_for(handed.lease.id, "expired", seconds=60)
    with pytest.raises(psycopg.OperationalError):
        log_in(small_postgres, handed)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_reconnecting_guest_is_ended_between_attempts(
    sessions: Sessions, world: World, kind: str, request: pytest.FixtureRequest
) -> None:
    """Of leases whose end failed; nobody else, and it is no end."""
    if kind == "mariadb":
        ward: Mariadb = request.getfixturevalue("ward")
        handed, other = world.issue(*ward_guest(world)), world.issue(*ward_guest(world))
        assert handed.values is not None and other.values is not None
        session, innocent = sessions.keep(ward.guest(handed.values)), sessions.keep(ward.guest(other.values))
    else:
        handed, other = world.issue(*world.guest()[:2]), world.issue(*world.guest()[:2])
        session, innocent = sessions.keep(world.connect(handed)), sessions.keep(world.connect(other))
    later = world.now() + timedelta(hours=1)
    world.change(Lease, handed.lease.id, state="revoke_failed", next_attempt_at=later, ending_since=world.now())
    assert guest_limits.end_sessions_of_failed_leases(world.ender) >= 1
    until(lambda: is_over(session), seconds=30)
    assert not is_over(innocent)
    assert world.lease(handed.lease.id).state == "revoke_failed"
    world.change(Lease, handed.lease.id, next_attempt_at=world.now())
    world.wait_sweeping(handed.lease.id, "revoked")
