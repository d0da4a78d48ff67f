"""Names are found from their beginning, in any case, without reading every row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

BEGINNINGS = (
    ("person", "name"),
    ("person", "email"),
    ("vendor", "name"),
    ("team", "name"),
    ("dataset", "slug"),
    ("dataset", "title"),
)


def upgrade() -> None:
    """Add the indexes."""
    for table, column in BEGINNINGS:
        begins = [sa.text(f"lower({column}) text_pattern_ops")]
        op.create_index(f"ix_{table}_{column}_begins", table, begins, schema="guestkey")
