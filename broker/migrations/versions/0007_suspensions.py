"""Suspensions, and which leases each ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; the application role may open and close suspensions, and forgets none."""
    op.create_table(
        "suspension",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("target_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("expected", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("found", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("suspended_by", sa.String(length=40), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("resumed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resumed_by", sa.String(length=40), nullable=True),
        sa.CheckConstraint("what IN ('vendor', 'person', 'dataset')", name=op.f("ck_suspension_what")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suspension")),
        schema="guestkey",
    )
    op.create_index(
        "uq_suspension_open",
        "suspension",
        ["what", "target_id"],
        unique=True,
        schema="guestkey",
        postgresql_where=sa.text("resumed_at IS NULL"),
    )
    op.create_index("ix_suspension_by_id", "suspension", ["suspended_by", "id"], schema="guestkey")
    op.add_column("lease", sa.Column("suspension_id", sa.String(length=40), nullable=True), schema="guestkey")
    op.create_index(
        "ix_lease_suspension",
        "lease",
        ["suspension_id", "id"],
        schema="guestkey",
        postgresql_where=sa.text("suspension_id IS NOT NULL"),
    )
    op.execute("GRANT SELECT, INSERT ON guestkey.suspension TO guestkey_app")
    op.execute("GRANT UPDATE (resumed_at, resumed_by) ON guestkey.suspension TO guestkey_app")
