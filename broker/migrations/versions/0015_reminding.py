"""When somebody last reminded those who decide about a request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("request", sa.Column("reminded_at", sa.DateTime(timezone=True), nullable=True), schema="guestkey")
