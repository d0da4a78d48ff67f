"""Schema changes, as Alembic revisions. `upgrade` brings a database to the newest one, as its owner."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine

from broker.base.errors import Invalid
from broker.models import SCHEMA

# Before the first release revisions were bare numbers; the last one's tables are those of `0001_schema`.
_LAST_NUMBERED = "0029"


def upgrade(owner_url: str) -> None:
    """Apply every migration that is missing; twice is fine.

    Args:
        owner_url: `postgresql://…` as the owner of schema `guestkey`; never the application's login.

    Raises:
        Invalid: the tables are of a version too old to upgrade from, or of a later release; nothing was changed.
    """
    config = _config()
    known = _known(config)
    engine = create_engine(owner_url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            current = _current(connection)
            if current == _LAST_NUMBERED:
                command.stamp(config, "0001_schema", purge=True)
            elif current is not None and current not in known:
                raise _not_ours(current)
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def pending(engine: Engine) -> bool:
    """Whether the database lacks a migration this code needs.

    A revision this code does not know is a later release's, and those only add: during an upgrade the replicas of the
    release before go on working.
    """
    known = _known(_config())
    with engine.connect() as connection:
        current = _current(connection)
    # From newest to oldest.
    return current is None or current.isdigit() or current in known[1:]


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA}).get_current_revision()


def _known(config: Config) -> list[str]:
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def _not_ours(current: str) -> Invalid:
    if current.isdigit():
        return Invalid(
            f"The records' tables are at revision {current} of before the first release, which cannot be upgraded.",
            advice=f"Start with an empty database (make up: a new STATE), or bring them to {_LAST_NUMBERED} first with"
            " the last version that had numbered revisions.",
        )
    return Invalid(
        f"The records' tables are at revision {current}, which this version does not know: a later release made it.",
        advice="Run `guestkey migrate` of that release, or a later one.",
    )
