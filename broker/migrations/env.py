"""Alembic's entry: runs the revisions on the connection that `broker.migrations.upgrade` opened."""

from __future__ import annotations

from alembic import context

from broker.models import SCHEMA, Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    compare_type=True,
)
context.run_migrations()
