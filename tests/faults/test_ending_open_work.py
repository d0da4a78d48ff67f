"""What is open at the moment of ending, and clings: it ends with the credential, whatever it was doing.

Held cursors, transactions and locks, and holders that log in again without pause, are tried in
tests/credentials/test_postgres_ending.py; cursors read across a suspension in promise 4.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from broker.kinds.discovery import kinds
from broker.kinds.names import short
from broker.leases.issuing import Handed
from broker.models import Lease
from tests.faults.guests import guest
from tests.faults.holding import gone, settle
from tests.support.world import World

Session = psycopg.Connection[tuple[Any, ...]]


@contextmanager
def at_work(work: Callable[[], object]) -> Iterator[list[Exception]]:
    """Let a guest's session be in the middle of something; yields what it came to."""
    came_to: list[Exception] = []

    def run() -> None:
        try:
            while True:
                work()
        except psycopg.Error as error:
            came_to.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    yield came_to
    thread.join(15)
    assert not thread.is_alive(), "it works on"


def another_role(world: World, session: Session, handed: Handed) -> Callable[[], object]:
    """Under the slice's own role, which outlives the guest's; the broker grants no right to take it on."""
    group = f"gks_{short(handed.lease.slice_id)}"
    with world.admin() as admin:
        admin.execute(f'GRANT {group} TO "{(handed.values or {})["username"]}" WITH SET TRUE')
    session.execute(f"SET ROLE {group}")
    relation = (handed.values or {})["relation"]

    def read() -> None:
        assert session.execute(f"SELECT current_user, count(*) FROM {relation} GROUP BY 1").fetchone()
        time.sleep(0.02)

    return read


def a_long_query(world: World, session: Session, handed: Handed) -> Callable[[], object]:
    session.execute("SET statement_timeout = 0")
    return lambda: session.execute("SELECT pg_sleep(30)")


def a_query_that_never_waits(world: World, session: Session, handed: Handed) -> Callable[[], object]:
    session.execute("SET statement_timeout = 0")
    return lambda: session.execute("SELECT count(*) FROM generate_series(1, 2000000000)")


def a_copy(world: World, session: Session, handed: Handed) -> Callable[[], object]:
    relation = (handed.values or {})["relation"]

    def copy() -> None:
        text = f"COPY (SELECT p.* FROM {relation} p, generate_series(1, 100000000)) TO STDOUT"
        with session.cursor().copy(text) as rows:
            for _ in rows:
                continue

    return copy


def a_failed_transaction(world: World, session: Session, handed: Handed) -> Callable[[], object]:
    session.execute("BEGIN")
    with pytest.raises(psycopg.errors.UndefinedTable):
        session.execute("SELECT * FROM nowhere")

    def cling() -> None:
        try:
            session.execute("SELECT 1")
        except psycopg.errors.InFailedSqlTransaction:
            time.sleep(0.05)

    return cling


CLINGING = [another_role, a_long_query, a_query_that_never_waits, a_copy, a_failed_transaction]


@pytest.mark.whole
@pytest.mark.parametrize("clinging", CLINGING, ids=lambda one: one.__name__.replace("_", " "))
def test_open_session_ends_at_the_declared_time(
    world: World, clinging: Callable[[World, Session, Handed], Callable[[], object]]
) -> None:
    one = guest(world, "postgres")
    handed = one.issue(world, lifetime=300)
    session = world.connect(handed)
    try:
        with at_work(clinging(world, session, handed)) as came_to:
            assert not came_to, "it is at work"
            began = time.monotonic()
            world.change(Lease, handed.lease.id, expires_at=world.now())
            settle(world, one)
            took = time.monotonic() - began
        assert len(came_to) == 1
        assert took < one.kind.ending.open_sessions, f"{took:.1f} s"
        assert world.roles_of(handed.lease.id) == 0
    finally:
        session.close()


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(kinds))
def test_everything_guests_keep_open_ends_in_time(world: World, name: str) -> None:
    one = guest(world, name)
    if one.stays is None:
        assert name == "token", "nothing is open with a token: each use is asked about on its own"
        return
    handed = one.issue(world, lifetime=300)
    assert handed.values is not None
    with one.stays(handed.values) as goes_on:
        assert goes_on()
        world.change(Lease, handed.lease.id, expires_at=world.now())
        began = time.monotonic()
        settle(world, one)
        gone(goes_on, began + one.kind.ending.open_sessions - time.monotonic())
