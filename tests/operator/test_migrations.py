"""Migrations make exactly what the records describe."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

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
