"""When a lease was last renewed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("lease", sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=True), schema="guestkey")
