"""Why the last sign-in at a source failed; audiences that its ID tokens may be for beside us."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the table."""
    none_yet = sa.text("'[]'::jsonb")
    audiences = sa.Column("other_audiences", postgresql.JSONB(), server_default=none_yet, nullable=False)
    op.add_column("sign_in_source", audiences, schema="guestkey")
    op.create_table(
        "source_failure",
        sa.Column("source_id", sa.String(length=40), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"], ["guestkey.sign_in_source.id"], name=op.f("fk_source_failure_source_id")
        ),
        sa.PrimaryKeyConstraint("source_id", name=op.f("pk_source_failure")),
        schema="guestkey",
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON guestkey.source_failure TO guestkey_app")
