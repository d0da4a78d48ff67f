"""What connected databases hold by name, drafts of datasets, and how many rows a slice is thought to show."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; what they hold is replaceable, so the application role may delete it."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "catalogue",
        sa.Column("connection", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(length=40), nullable=False),
        sa.Column("asked_at", moment, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("read_at", moment, nullable=True),
        sa.Column("tables", sa.Integer(), nullable=False),
        sa.Column("cut", sa.Boolean(), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'ready', 'failed')", name=op.f("ck_catalogue_state")),
        sa.PrimaryKeyConstraint("connection", name=op.f("pk_catalogue")),
        schema="guestkey",
    )
    op.create_index(
        "ix_catalogue_waiting",
        "catalogue",
        ["state"],
        schema="guestkey",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "catalogue_table",
        sa.Column("connection", sa.String(length=64), nullable=False),
        sa.Column("schema", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("usable", sa.Boolean(), nullable=False),
        sa.Column("notes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("columns", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["connection"], ["guestkey.catalogue.connection"], name=op.f("fk_catalogue_table_connection_catalogue")
        ),
        sa.PrimaryKeyConstraint("connection", "schema", "name", name=op.f("pk_catalogue_table")),
        schema="guestkey",
    )
    op.create_table(
        "dataset_draft",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("made_by", sa.String(length=40), nullable=False),
        sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_draft")),
        schema="guestkey",
    )
    op.create_index("ix_dataset_draft_expires", "dataset_draft", ["expires_at"], schema="guestkey")
    op.add_column("slice", sa.Column("rows_estimate", sa.BigInteger(), nullable=True), schema="guestkey")
    op.execute("GRANT SELECT, INSERT, UPDATE ON guestkey.catalogue TO guestkey_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON guestkey.catalogue_table TO guestkey_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON guestkey.dataset_draft TO guestkey_app")
