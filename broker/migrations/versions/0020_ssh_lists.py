"""Leases of kind ssh by when they end: what lists of revoked ones are made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_lease_ssh_expiry",
        "lease",
        ["expires_at"],
        schema="guestkey",
        postgresql_where=sa.text("kind = 'ssh'"),
    )
