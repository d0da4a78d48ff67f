"""What each event is about, so that all about a person, dataset or lease is found; and when, for a day's events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and its index. Events from before are found by their actor and subject."""
    about = sa.Column("about", sa.ARRAY(sa.String(length=40)), server_default=sa.text("'{}'"), nullable=False)
    op.add_column("event", about, schema="guestkey")
    op.create_index("ix_event_about", "event", ["about"], schema="guestkey", postgresql_using="gin")
    op.create_index("ix_event_at", "event", ["at"], schema="guestkey")
    op.execute("GRANT INSERT (about) ON guestkey.event TO guestkey_app")
