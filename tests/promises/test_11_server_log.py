"""Promise 11: no guest of a PostgreSQL slice fills the disk with the server's log, and who logged in is in it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from broker.kinds.postgres.kind import CONFIRMED
from tests.support.fighter import Fighter, end
from tests.support.waiting import until
from tests.support.world import World

# What a guest does, each of which by default puts megabytes into the log.
WRITING = {
    "messages": ["DO $$ BEGIN FOR i IN 1..3 LOOP RAISE LOG '%', repeat('x', 1000000); END LOOP; END $$"],
    "a warning": ["DO $$ BEGIN RAISE WARNING '%', repeat('x', 3000000); END $$"],
    "an error": ["SELECT repeat('x', 3000000)::int"],
    "the statement of an error": [f"SELECT 1/0 /* {'x' * 3_000_000} */"],
    "plans": [
        "SET debug_print_plan = on; SET debug_print_parse = on; SET debug_print_rewritten = on",
        *[f"SELECT {', '.join(['version()'] * 1000)}"] * 5,
    ],
    "the end of its session": [
        "SET transaction_timeout = '3s'",
        "DO $$ BEGIN EXECUTE 'SELECT pg_sleep(60) /* ' || repeat('x', 3000000) || '*/'; END $$",
    ],
}
# What might let it write again.
OPENING = (
    "RESET ALL",
    "DISCARD ALL",
    "RESET log_min_messages",
    "SET log_min_messages = debug5",
    "ALTER ROLE {self} RESET ALL",
    "ALTER ROLE {self} IN DATABASE data RESET ALL",
    "ALTER ROLE {self} SET log_min_messages = log",
    "ALTER ROLE {self} RESET log_min_error_statement",
    "ALTER ROLE {self} IN DATABASE data SET log_min_error_statement = error",
)


@pytest.fixture
def talkative(world: World) -> Iterator[None]:
    """A server that logs who connects, and statements of errors, as it does by default."""
    with world.admin() as admin:
        admin.execute("ALTER SYSTEM SET log_connections = 'on'")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("ALTER DATABASE data SET log_min_error_statement = 'error'")
        try:
            until(lambda: logs_connections(world), seconds=20, what="the setting")
            yield
        finally:
            admin.execute("ALTER DATABASE data RESET log_min_error_statement")
            admin.execute("ALTER SYSTEM RESET log_connections")
            admin.execute("SELECT pg_reload_conf()")


def logs_connections(world: World) -> bool:
    """Whether a session that begins now is logged; one that is open keeps what it began with."""
    with world.admin() as admin:
        return admin.execute("SHOW log_connections").fetchone() not in (("",), ("off",))


def written(world: World, fighter: Fighter, statements: list[str], first: tuple[str, ...] = ()) -> int:
    """How many bytes the log grew by while a guest did that, all in one session of its own."""
    log = world.stack.postgres.data.log
    before = log.stat().st_size
    with fighter.session() as session:
        for statement in [*(one.format(**fighter.names) for one in first), *statements]:
            try:
                session.execute(statement)
            except psycopg.Error:
                continue
    time.sleep(0.3)
    return log.stat().st_size - before


@pytest.mark.parametrize("how", WRITING)
def test_guest_cannot_write_to_the_server_log(world: World, talkative: None, how: str) -> None:
    fighter = Fighter(world)
    assert written(world, fighter, WRITING[how]) < 10_000
    # The next session has what a guest changed of its own role in the one before.
    assert written(world, fighter, WRITING[how], OPENING) < 10_000
    assert written(world, fighter, WRITING[how]) < 10_000
    with world.admin() as admin:
        admin.execute(f'ALTER ROLE "{fighter.user}" RESET ALL')
    assert written(world, fighter, WRITING[how]) > 1_000_000, "without them it would"


def test_logins_stay_in_the_server_log(world: World, talkative: None) -> None:
    fighter = Fighter(world)
    with fighter.session():
        pass
    assert f"connection authorized: user={fighter.user} " in world.stack.postgres.data.log.read_text(errors="replace")


def test_guests_work_without_the_right_to_set_log_parameters(world: World) -> None:
    both = "log_min_messages, log_min_error_statement"
    with world.admin() as admin:
        admin.execute(f"REVOKE SET ON PARAMETER {both} FROM guestkey_minter")
        try:
            fighter = Fighter(world)
            with fighter.session() as session:
                assert session.execute(f"SELECT count(*) > 0 FROM {fighter.view}").fetchone() == (True,)
                assert session.execute("SHOW log_min_messages").fetchone() == ("warning",)
                assert session.execute("SHOW statement_timeout").fetchone() == ("1min",)
            assert end(world, [fighter])[0] == [CONFIRMED]
        finally:
            admin.execute(f"GRANT SET ON PARAMETER {both} TO guestkey_minter")
