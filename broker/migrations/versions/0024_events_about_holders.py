"""Events from before are also found by whom and what the record names that they happened to: a lease by its holder."""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# The records, and their columns that name others.
_NAMED_BY = (
    ("lease", ("person_id", "service_id", "dataset_id", "slice_id", "grant_id")),
    ("grant", ("person_id", "team_id", "service_id", "dataset_id", "request_id")),
    ("request", ("person_id", "for_person_id", "team_id", "service_id", "dataset_id")),
    ("slice", ("dataset_id",)),
    ("offer", ("dataset_id", "vendor_id")),
    ("invitation", ("person_id", "vendor_id")),
    ("session", ("person_id",)),
    ("api_token", ("person_id", "service_id")),
)


def upgrade() -> None:
    """Lengthen `about`, which is no part of the signed leaf. Running it twice adds nothing."""
    for table, columns in _NAMED_BY:
        named = "array_remove(ARRAY[" + ", ".join(f"r.{column}" for column in columns) + "]::varchar(40)[], NULL)"
        # Names of tables and columns of ours: nothing here comes from outside.
        op.execute(
            f"UPDATE guestkey.event e SET about = e.about || {named} "  # noqa: S608
            f'FROM guestkey."{table}" r WHERE e.subject = r.id AND NOT e.about @> {named}'
        )
