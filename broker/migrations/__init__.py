"""Schema changes, as Alembic revisions. `upgrade` brings a database to the newest one, as its owner."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

from broker.models import SCHEMA


def upgrade(owner_url: str) -> None:
    """Apply every migration that is missing; twice is fine.

    Args:
        owner_url: `postgresql://…` as the owner of schema `guestkey`; never the application's login.
    """
    config = _config()
    engine = create_engine(owner_url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def pending(engine: Engine) -> bool:
    """Whether the database lacks a migration this code needs.

    A revision this code does not know is a later release's, and those only add: during an upgrade the replicas of the
    release before go on working.
    """
    with engine.connect() as connection:
        current = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA}).get_current_revision()
    scripts = ScriptDirectory.from_config(_config())
    known = {script.revision for script in scripts.walk_revisions()}
    return current is None or (current in known and current != scripts.get_current_head())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config
