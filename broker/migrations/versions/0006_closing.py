"""Closing the installation, and holding grants until they are confirmed after a restore."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what runs on them already has its rights."""
    moment = sa.DateTime(timezone=True)
    op.add_column("policy_in_force", sa.Column("closed_at", moment, nullable=True), schema="guestkey")
    op.add_column(
        "policy_in_force", sa.Column("closed_why", sa.Text(), server_default="", nullable=False), schema="guestkey"
    )
    op.add_column("policy_in_force", sa.Column("held_before", moment, nullable=True), schema="guestkey")
    op.add_column("grant", sa.Column("confirmed_at", moment, nullable=True), schema="guestkey")
    op.add_column("grant", sa.Column("confirmed_by", sa.String(length=40), nullable=True), schema="guestkey")
