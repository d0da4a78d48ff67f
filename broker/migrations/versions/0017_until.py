"""By when at the latest what a request asks for is to end, however late it is approved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("request", sa.Column("until", sa.DateTime(timezone=True), nullable=True), schema="guestkey")
