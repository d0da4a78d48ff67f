"""Migrations make exactly what the records describe, and say so where they cannot."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from broker.embedded.stack import Stack
from broker.migrations import pending, upgrade
from broker.models import Base
from tests.operator.conftest import command

# As PostgreSQL describes them, in its own words; rights apart, which records know nothing of.
SCHEMA = """
SELECT c.relname, 'column ' || a.attname, format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '')
       || CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY ' || a.attidentity::text END
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
       LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum
 WHERE relnamespace = 'guestkey'::regnamespace AND relkind = 'r'
UNION ALL
SELECT conrelid::regclass::text, 'constraint ' || conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'guestkey'::regnamespace
UNION ALL
SELECT tablename, 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'guestkey'
UNION ALL
SELECT relname, 'kind', relkind::text FROM pg_class WHERE relnamespace = 'guestkey'::regnamespace AND relkind <> 'i'
UNION ALL
SELECT proname, 'function', prosrc FROM pg_proc WHERE pronamespace = 'guestkey'::regnamespace
"""
AS_OWNER = "postgresql+psycopg:"


@contextmanager
def database(stack: Stack) -> Iterator[str]:
    """An empty database on the records' server, as an operator prepares it; its owner's address."""
    records, name = stack.postgres.records, f"empty_{secrets.token_hex(4)}"
    with psycopg.connect(records.url("postgres", "postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            with psycopg.connect(records.url("postgres", name)) as session:
                session.execute("CREATE SCHEMA guestkey AUTHORIZATION guestkey_owner")
            yield records.url("owner", name)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty(stack: Stack) -> Iterator[str]:
    """The owner's address of an empty database."""
    with database(stack) as url:
        yield url


@pytest.fixture
def migrated(empty: str) -> str:
    """The owner's address of a database with all migrations."""
    upgrade(empty)
    return empty


def described(url: str) -> set[tuple[str, str, str]]:
    with psycopg.connect(url) as session:
        found = {(table, what, how) for table, what, how in session.execute(SCHEMA).fetchall()}
    return {(table, what, how) for table, what, how in found if "alembic_version" not in f"{table} {what}"}


@contextmanager
def engine(url: str) -> Iterator[Engine]:
    made = create_engine(url.replace("postgresql:", AS_OWNER, 1))
    yield made
    made.dispose()


def is_pending(url: str) -> bool:
    with engine(url) as made:
        return pending(made)


def revision(url: str, to: str | None = None) -> str:
    """The revision that the tables say they are of, after changing it if asked."""
    with psycopg.connect(url) as session:
        if to is not None:
            session.execute("UPDATE guestkey.alembic_version SET version_num = %s", (to,))
        (found,) = session.execute("SELECT version_num FROM guestkey.alembic_version").fetchone() or ("",)
    return str(found)


def test_migrated_tables_are_those_of_the_models(stack: Stack, migrated: str) -> None:
    with database(stack) as made_by_models:
        with engine(made_by_models) as made:
            Base.metadata.create_all(made)
        assert sorted(described(migrated) ^ described(made_by_models)) == []
    assert not is_pending(migrated)


def test_migrating_twice_changes_nothing(migrated: str) -> None:
    before = described(migrated), revision(migrated)
    upgrade(migrated)
    assert (described(migrated), revision(migrated)) == before


def test_replica_is_ready_on_tables_of_a_later_release_but_not_on_earlier_ones(empty: str) -> None:
    assert is_pending(empty)
    upgrade(empty)
    current = revision(empty)
    for found, lacking in (("9999_later", False), ("0029", True), ("0005", True), (current, False)):
        revision(empty, found)
        assert is_pending(empty) is lacking, found


def test_tables_of_the_last_numbered_revision_are_taken_over_as_they_are(migrated: str) -> None:
    newest, tables = revision(migrated), described(migrated)
    revision(migrated, "0029")
    upgrade(migrated)
    assert (revision(migrated), described(migrated)) == (newest, tables)


@pytest.mark.parametrize(("found", "says"), [("0017", "Start with an empty database"), ("9999_later", "later release")])
def test_migrate_refuses_tables_it_cannot_upgrade_in_one_line(migrated: str, found: str, says: str) -> None:
    revision(migrated, found)
    ran = command(["migrate"], {**os.environ, "GUESTKEY_OWNER_DATABASE_URL": migrated})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"guestkey: The records' tables are at revision {found}") and says in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert revision(migrated) == found
