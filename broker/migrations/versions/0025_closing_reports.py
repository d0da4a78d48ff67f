"""Closing the whole installation is a suspension too, with a report."""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let suspensions be of the installation."""
    op.drop_constraint("ck_suspension_what", "suspension", schema="guestkey")
    op.create_check_constraint(
        op.f("ck_suspension_what"),
        "suspension",
        "what IN ('vendor', 'person', 'dataset', 'installation')",
        schema="guestkey",
    )
