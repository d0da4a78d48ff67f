"""All tables, indexes and rights of the first release: `first_release.sql`."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001_schema"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file as it stands: without parameters, because only then one call may hold many statements."""
    statements = Path(__file__).parents[1].joinpath("first_release.sql").read_text()
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
