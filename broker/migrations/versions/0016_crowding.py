"""What is urgent is found first among what waits, and a channel is told how many messages it was spared."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the index."""
    column = sa.Column("left_out", sa.Integer(), server_default=sa.text("0"), nullable=False)
    op.add_column("delivery", column, schema="guestkey")
    op.create_index(
        "ix_delivery_urgent",
        "delivery",
        ["next_attempt_at"],
        schema="guestkey",
        postgresql_where=sa.text("state = 'waiting' AND topic IN ('emergency', 'failures')"),
    )
