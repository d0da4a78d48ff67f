"""Stacks of the tests: the real servers with something to make slices of, and how much they care for a power cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from broker.embedded.stack import Stack
from broker.migrations import upgrade
from tests.support.data import make_clinic, make_pictures

# What PostgreSQL does so that a machine may lose its power. No test takes that away; a killed server loses nothing.
_FOR_POWER_CUTS = ("fsync", "full_page_writes")


@contextmanager
def running_stack() -> Iterator[Stack]:
    """OpenBao, PostgreSQL and an object store, migrated, with a table and a bucket to make slices of."""
    # Not under pytest's own folders: PostgreSQL runs as another user when we are root, and must reach its data.
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder))
        stack.start()
        try:
            upgrade(stack.postgres.url("owner", "guestkey"))
            make_clinic(stack.postgres.url("postgres", "data"))
            make_pictures(stack.store.client())
            yield stack
        finally:
            stack.stop()


def be_durable(stack: Stack, durable: bool) -> None:
    """Let both servers of PostgreSQL wait for the disk as in operation, or not: most tests are quicker without."""
    for server in (stack.postgres.records, stack.postgres.data):
        with psycopg.connect(server.url("postgres", "postgres"), autocommit=True) as session:
            for setting in _FOR_POWER_CUTS:
                session.execute(f"ALTER SYSTEM {f'RESET {setting}' if durable else f'SET {setting} = off'}")
            session.execute("SELECT pg_reload_conf()")


@contextmanager
def durable(stack: Stack) -> Iterator[None]:
    """For a block, as in operation."""
    be_durable(stack, True)
    try:
        yield
    finally:
        be_durable(stack, False)
