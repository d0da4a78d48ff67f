"""Alembic's entry: runs the revisions on the connection that `broker.migrations.upgrade` opened."""

from __future__ import annotations

from alembic import context

from broker.models import SCHEMA

context.configure(connection=context.config.attributes["connection"], version_table_schema=SCHEMA)
context.run_migrations()
