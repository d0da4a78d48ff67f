"""What lay behind a slice when it was registered, and the state of one behind which something has changed since."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the state."""
    op.add_column("slice", sa.Column("seen", postgresql.JSONB(), nullable=True), schema="guestkey")
    op.execute("ALTER TABLE guestkey.slice DROP CONSTRAINT ck_slice_state")
    op.execute(
        "ALTER TABLE guestkey.slice ADD CONSTRAINT ck_slice_state"
        " CHECK (state IN ('registering', 'ready', 'changed', 'failed', 'retired'))"
    )
