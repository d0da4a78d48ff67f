"""Recurring work is shared by all workers; places that did not answer are remembered until they do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; what they hold is found out anew if it is lost."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "chore",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chore")),
        schema="guestkey",
    )
    op.create_table(
        "silent_place",
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column("since", moment, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "place", name=op.f("pk_silent_place")),
        schema="guestkey",
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON guestkey.chore TO guestkey_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON guestkey.silent_place TO guestkey_app")
