"""What a lease's credential is made for, and until when a backend that cannot end it leaves it alive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("lease", sa.Column("key_hash", sa.LargeBinary(), nullable=True), schema="guestkey")
    op.add_column("lease", sa.Column("exposed_until", sa.DateTime(timezone=True), nullable=True), schema="guestkey")
