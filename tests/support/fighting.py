"""Guests of PostgreSQL who fight: what an ordinary user may run to keep its session, or to hinder somebody's end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

Session = psycopg.Connection[tuple[Any, ...]]


class Refused(str):
    """A statement that PostgreSQL refuses this user, whatever the broker forbids."""

    __slots__ = ()


def hold(session: Session, statements: Sequence[str]) -> None:
    """Run statements, each of which is taken or refused as it is written down."""
    for statement in statements:
        refused = None
        try:
            session.execute(statement)
        except psycopg.Error as error:
            refused = error
        assert (refused is not None) == isinstance(statement, Refused), f"{statement}: {refused!r}"


def run(session: Session, statements: Sequence[str]) -> None:
    """Run statements one after the other; one that is refused is followed by the next, as a guest would go on."""
    for statement in statements:
        with suppress(psycopg.Error):
            session.execute(statement)


def reads(session: Session, relation: str) -> bool:
    """Whether a session still reads, whatever state its transaction is in."""
    with suppress(psycopg.Error):
        session.execute("ROLLBACK")
    try:
        session.execute(f"SELECT count(*) FROM {relation}")
    except psycopg.Error:
        return False
    return True


def _hold(session: Session, statements: Sequence[str], stop: threading.Event) -> None:
    run(session, statements)
    while not stop.wait(0.01):
        try:
            session.execute("SELECT pg_sleep(0.01)")
        except psycopg.errors.InFailedSqlTransaction:
            continue
        except psycopg.Error:
            return


@contextmanager
def relocking(log_in: Callable[[], Session], statements: Sequence[str]) -> Iterator[list[Session]]:
    """Three threads that log in as often as they can and hold the statements open each time. Yields their sessions."""
    stop, sessions, began = threading.Event(), list[Session](), threading.Barrier(4)

    def fight() -> None:
        first = True
        while not stop.is_set():
            try:
                sessions.append(session := log_in())
            except psycopg.Error:
                stop.wait(0.002)
                continue
            # It may be held up by another's lock, until it is ended.
            holding = threading.Thread(target=_hold, args=(session, statements, stop))
            holding.start()
            if first:
                first = False
                began.wait(60)
            holding.join()

    threads = [threading.Thread(target=fight) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        began.wait(60)
        yield sessions
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        for session in sessions:
            session.close()


_OWN_ROW = "ALTER ROLE {self} PASSWORD 'x'"


def _refused(statement: str) -> Sequence[str]:
    """It is refused, and the transaction goes on: what was tried in vain is no way out of what is held besides."""
    return ["BEGIN", "SAVEPOINT a", Refused(statement), "ROLLBACK TO a", _OWN_ROW]


# What each holds open in a transaction; {self} is its own user, {other} another guest's, {view} what it reads.
HELD_OPEN: Mapping[str, Sequence[str]] = {
    "own password": ["BEGIN", _OWN_ROW],
    "own settings": ["BEGIN", *(f"ALTER ROLE {{self}} SET work_mem = '{n + 64}kB'" for n in range(200))],
    "own settings in this database": ["BEGIN", "ALTER ROLE {self} IN DATABASE data SET work_mem = '64kB'"],
    "own limits reset": ["BEGIN", "ALTER ROLE {self} RESET ALL"],
    "comment on itself refused": _refused("COMMENT ON ROLE {self} IS 'x'"),
    "comment on another refused": _refused("COMMENT ON ROLE {other} IS 'x'"),
    "label on itself refused": _refused("SECURITY LABEL ON ROLE {self} IS 'x'"),
    "default rights for another": ["BEGIN", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {other}"],
    "default rights for another, kept": ["ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {other}"],
    "default rights for the group": ["BEGIN", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {group}"],
    "grant of itself refused": _refused("GRANT {self} TO {other}"),
    # Taken with a warning: a guest has no right that it may grant on.
    "grant of nothing to another": ["BEGIN", "GRANT SELECT ON {view} TO {other}"],
    "drop what it owns": ["BEGIN", "DROP OWNED BY {self}"],
    "reassign refused": _refused("REASSIGN OWNED BY {self} TO {other}"),
    "table lock on its view": ["BEGIN", "LOCK TABLE {view} IN ACCESS SHARE MODE"],
    "table lock on users refused": _refused("LOCK TABLE pg_authid IN ACCESS SHARE MODE"),
    "table lock on a catalogue": [
        "BEGIN",
        "LOCK TABLE pg_roles IN ACCESS SHARE MODE",
        "LOCK TABLE pg_auth_members IN ACCESS SHARE MODE",
    ],
    "row lock refused": _refused("SELECT * FROM {view} FOR KEY SHARE"),
    "catalogue read": ["BEGIN", "SELECT * FROM pg_roles"],
    "advisory locks": ["SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 20000) i"],
    "nested savepoints": [
        "BEGIN",
        *(f"SAVEPOINT s{n}; ALTER ROLE {{self}} SET work_mem = '{n + 64}kB'" for n in range(300)),
    ],
    "old snapshot": [
        "SET statement_timeout = 0",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT count(*) FROM {view}",
    ],
    "serializable": ["BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT count(*) FROM {view}"],
    "cursor kept": ["BEGIN", "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM {view}", "COMMIT"],
    # That it is refused undoes the transaction it would have kept.
    "prepared transaction refused": ["BEGIN", _OWN_ROW, Refused("PREPARE TRANSACTION 'fight'"), "BEGIN", _OWN_ROW],
    "listening": ["LISTEN fight", "BEGIN", "NOTIFY fight, 'x'"],
    "session authorization refused": _refused("SET SESSION AUTHORIZATION postgres"),
    "role of the watch refused": _refused("SET ROLE guestkey_watch"),
    "everything discarded": ["DISCARD ALL", "BEGIN", _OWN_ROW],
    # Only what came after the savepoint is undone.
    "failed transaction": ["BEGIN", _OWN_ROW, "SAVEPOINT a", Refused("SELECT 1/0")],
    "longer life refused": _refused("ALTER ROLE {self} VALID UNTIL 'infinity'"),
}
# What outlasts a transaction; every other leaves one open.
WITHOUT_TRANSACTION = frozenset({"default rights for another, kept", "advisory locks", "cursor kept"})
