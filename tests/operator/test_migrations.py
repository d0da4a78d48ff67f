"""Migrations make exactly what the records describe."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from broker.migrations import pending, upgrade
from broker.models import SCHEMA, Base
from tests.support.world import World


def test_the_migrated_tables_are_the_records(world: World) -> None:
    url = world.stack.postgres.url("owner", "guestkey")
    upgrade(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    options = {"include_schemas": True, "version_table_schema": SCHEMA, "compare_type": True}
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    engine.dispose()
    assert difference == []
    assert not pending(world.parts.database.engine)


def test_a_replica_is_ready_on_later_tables_but_not_on_earlier_ones(world: World) -> None:
    engine = create_engine(world.stack.postgres.url("owner", "guestkey").replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        current = connection.execute(text("SELECT version_num FROM guestkey.alembic_version")).scalar_one()
    found = []
    for revision in ("9999", "0005", current):
        with engine.begin() as connection:
            connection.execute(text("UPDATE guestkey.alembic_version SET version_num = :to"), {"to": revision})
        found.append(pending(engine))
    engine.dispose()
    assert found == [False, True, False]
