"""Promise 11: a guest that fills PostgreSQL's table of locks, and holds every connection, is ended all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import cast

import psycopg
import pytest

from broker.base.errors import BackendDown
from broker.kinds.discovery import kinds
from broker.kinds.postgres.kind import CONFIRMED, PostgresKind
from broker.kinds.postgres.sessions import LOCKS, end_overlong, watch_session
from broker.worker import guest_limits
from tests.support.fighter import DECLARED_SECONDS, Fighter, end, permissive
from tests.support.fighting import Session, reads
from tests.support.waiting import until
from tests.support.world import World

# The one that the worker has a session with.
WORKERS = cast(PostgresKind, kinds["postgres"])
# What a guest may run where nobody could take it from PUBLIC: the quickest way to fill the table. Savepoints with a
# change in each take as many, in minutes.
MANY_LOCKS = "SELECT count(pg_advisory_lock({first} + i)) FROM generate_series(1, {many}) i"


def take_every_connection(world: World, fighter: Fighter, kept: ExitStack) -> list[Session]:
    """As many guests as it takes would do the same: here one may log in without limit."""
    with world.admin() as admin:
        admin.execute(f'ALTER ROLE "{fighter.user}" CONNECTION LIMIT -1')
    sessions: list[Session] = []
    with pytest.raises(psycopg.OperationalError, match="remaining connection slots"):
        sessions.extend(kept.enter_context(fighter.session()) for _ in range(300))
    return sessions


def fill(world: World, session: Session) -> None:
    """Take locks until there are no more: nobody can log in."""
    with pytest.raises(psycopg.errors.OutOfMemory):
        session.execute(MANY_LOCKS.format(first=0, many=2_000_000))
    world.ender.vault.secret("connections/data/watch", remembered=True)
    with pytest.raises(BackendDown):
        watch_session(world.ender.vault, "data")


@pytest.fixture
def kept(world: World) -> Iterator[ExitStack]:
    """Sessions of guests, where functions could not be taken from PUBLIC."""
    with permissive(world), ExitStack() as sessions:
        yield sessions


def test_standing_session_ends_the_guest_who_filled_the_lock_table(world: World, kept: ExitStack) -> None:
    fighter, other = Fighter(world), Fighter(world)
    innocent = kept.enter_context(other.session())
    # As every five seconds, for a minute: a statement that is run often must take its locks each time all the same.
    for _ in range(12):
        guest_limits.end_overlong(world.ender)
    sessions = take_every_connection(world, fighter, kept)
    fill(world, sessions[0])
    assert guest_limits.end_overlong(world.ender) == 1
    until(lambda: not reads(sessions[0], fighter.view), what="the end of whoever filled it")
    assert reads(innocent, other.view)
    said, took = end(world, [fighter, other], WORKERS)
    assert (said, took < DECLARED_SECONDS) == ([CONFIRMED] * 2, True)
    assert not any(reads(session, fighter.view) for session in (*sessions, innocent))


@pytest.mark.parametrize("whose", ["whoever filled it", "another"])
def test_ending_does_not_wait_for_the_next_check(world: World, kept: ExitStack, whose: str) -> None:
    fighter, other = Fighter(world), Fighter(world)
    innocent = kept.enter_context(other.session())
    guest_limits.end_overlong(world.ender)
    sessions = take_every_connection(world, fighter, kept)
    fill(world, sessions[0])
    ending, session = (fighter, sessions[0]) if whose == "whoever filled it" else (other, innocent)
    said, took = end(world, [ending], WORKERS)
    assert (said, took < DECLARED_SECONDS) == ([CONFIRMED], True)
    assert not reads(session, ending.view)


def test_newly_started_worker_reports_the_full_lock_table_and_recovers(world: World, kept: ExitStack) -> None:
    """It has no session there, and gets none before whoever filled the table is ended at the server."""
    fighter = Fighter(world)
    session = take_every_connection(world, fighter, kept)[0]
    fill(world, session)
    fresh = PostgresKind()
    kept.callback(fresh.persistent.close)
    (said,), _ = end(world, [fighter], fresh)
    assert "does not answer" in said
    # What docs/guests-who-fight.md says to do at the server; OpenBao's own session may have got that far by now.
    with suppress(ProcessLookupError):
        os.kill(session.info.backend_pid, signal.SIGTERM)
    until(lambda: end(world, [fighter], fresh)[0] == [CONFIRMED], what="the end")


def test_sessions_below_the_limit_cannot_fill_the_lock_table(world: World, kept: ExitStack) -> None:
    fighters, patient = [Fighter(world) for _ in range(3)], Fighter(world)
    other = kept.enter_context(patient.session())
    for number in range(9):
        session = kept.enter_context(fighters[number % 3].session())
        session.execute(MANY_LOCKS.format(first=number * LOCKS, many=LOCKS - 500))
    with watch_session(world.ender.vault, "data") as watch:
        ended = end_overlong(watch)
    assert set(ended) == {fighter.user for fighter in fighters}
    assert reads(other, patient.view)
