"""Promise 11: a guest reads nothing more, though its session hears nothing and holds its row.

Some of PostgreSQL's own functions look for no signal until they are done (`translate` of two long texts takes hours).
The session then keeps what it has locked, and `NOLOGIN` cannot be written: the guest came in again and read on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from broker.kinds.postgres.kind import CONFIRMED
from broker.runtime.parts import vault_of
from tests.support.fighter import DECLARED_SECONDS, KIND, Fighter, end
from tests.support.fighting import Session
from tests.support.waiting import until
from tests.support.world import World

_COMPUTES = "SELECT length(translate(repeat('z', {n}), repeat('a', {n}), ''))"
_SECONDS = 12.0


@contextmanager
def _deaf(fighter: Fighter) -> Iterator[threading.Thread]:
    """A session that holds its own row and hears nothing for a while."""
    assert fighter.handed.values is not None
    with fighter.session() as session:
        began = time.monotonic()
        session.execute(_COMPUTES.format(n=8000))
        length = int(8000 * (_SECONDS / max(time.monotonic() - began, 0.01)) ** 0.5)
        session.execute("BEGIN")
        session.execute(f"ALTER ROLE {fighter.user} PASSWORD '{fighter.handed.values['password']}'")
        busy = threading.Thread(target=_computing, args=(session, length))
        busy.start()
        with fighter.session() as beside:
            query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND state = 'active'"
            until(lambda: beside.execute(query, (fighter.user,)).fetchone() == (2,), seconds=20)
        try:
            yield busy
        finally:
            busy.join(120)


def _computing(session: Session, length: int) -> None:
    try:
        session.execute(_COMPUTES.format(n=length))
    except psycopg.Error:
        # It hears in the end that it was told to go.
        session.close()


@contextmanager
def _reading(fighter: Fighter) -> Iterator[Callable[[], float]]:
    """Logs in and reads as often as it can. Yields when it last read."""
    stop, last = threading.Event(), [0.0]

    def read() -> None:
        while not stop.is_set():
            try:
                with fighter.session() as session:
                    while not stop.is_set():
                        session.execute(f"SELECT count(*) FROM {fighter.view}")
                        last[0] = time.monotonic()
            except psycopg.Error:
                stop.wait(0.02)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: last[0] > 0, seconds=30)
        yield lambda: last[0]
    finally:
        stop.set()
        reader.join(30)


@pytest.mark.parametrize("by", ["the worker", "OpenBao"])
def test_uninterruptible_guest_cannot_read_after_its_end(world: World, by: str) -> None:
    other, fighter = Fighter(world), Fighter(world)
    with _deaf(fighter) as busy, _reading(fighter) as last_read:
        began = time.monotonic()
        if by == "the worker":
            said, took = end(world, [other, fighter])
            assert took < DECLARED_SECONDS and said[0] == CONFIRMED, "nobody waits for it"
            assert said[1] != CONFIRMED, "its session is still there, and that is said"
        else:
            KIND.settle(vault_of(world.settings, "ender"), fighter.to_end())
        over = time.monotonic()
        time.sleep(2)
        assert busy.is_alive(), "what follows was seen while it computed"
        assert last_read() < max(over, began + DECLARED_SECONDS)
        assert last_read() < time.monotonic() - 1, "it reads no more"
    until(lambda: end(world, [fighter])[0] == [CONFIRMED], seconds=60)
