"""Slices are claimed by one worker at a time while they are made real or removed, and found by their connection."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column("slice", sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True), schema="guestkey")
    op.create_index("ix_slice_connection", "slice", ["kind", sa.text("(binding ->> 'connection')")], schema="guestkey")
    op.create_index(
        "ix_slice_claimed",
        "slice",
        ["claimed_until"],
        schema="guestkey",
        postgresql_where=sa.text("claimed_until IS NOT NULL"),
    )
