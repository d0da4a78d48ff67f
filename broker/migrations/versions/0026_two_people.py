"""Who bound a slice, chose labels or was shown a secret; refused joiners; acts about datasets that take two."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_STATUSES = "status IN ('pending', 'active', 'suspended', 'refused')"
_ACTS = (
    "act IN ('bind_source', 'trust_source_mfa', 'give_role', 'reset_factor', 'apply_policy', 'change_dataset',"
    " 'add_slice', 'rotate_secret', 'add_member')"
)
_TOPICS = (
    "topic IN ('to_decide', 'own_datasets', 'own_requests', 'own_grants', 'staff', 'joins', 'two_person', 'failures',"
    " 'emergency')"
)


def upgrade() -> None:
    """Add the columns, fill them from the events, and widen three checks: what is running writes neither."""
    op.add_column("slice", sa.Column("bound_by", sa.String(40), nullable=True), schema="guestkey")
    op.add_column("service", sa.Column("secret_seen_by", sa.String(40), nullable=True), schema="guestkey")
    labelled_by = sa.Column("labelled_by", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb"))
    op.add_column("dataset", labelled_by, schema="guestkey")
    checks = (("person", "status", _STATUSES), ("proposal", "act", _ACTS), ("notice_choice", "topic", _TOPICS))
    for table, name, check in checks:
        op.execute(f"ALTER TABLE guestkey.{table} DROP CONSTRAINT ck_{table}_{name}")
        op.execute(f"ALTER TABLE guestkey.{table} ADD CONSTRAINT ck_{table}_{name} CHECK ({check})")
    _fill()


def _fill() -> None:
    op.execute(
        "UPDATE guestkey.slice SET bound_by = substr(event.actor, 8) FROM guestkey.event"
        " WHERE event.subject = slice.id AND event.kind = 'slice.added' AND event.actor LIKE 'person:%'"
    )
    op.execute(
        "UPDATE guestkey.service SET secret_seen_by = ("
        " SELECT substr(event.actor, 8) FROM guestkey.event WHERE event.subject = service.id"
        " AND event.kind = 'service.secret_rotated' AND event.actor LIKE 'person:%' ORDER BY event.number DESC LIMIT 1)"
    )
    # Before, one admin chose labels alone, so everybody who ever did counts.
    op.execute(
        "UPDATE guestkey.dataset SET labelled_by = coalesce(("
        " SELECT jsonb_agg(DISTINCT substr(event.actor, 8)) FROM guestkey.event WHERE event.subject = dataset.id"
        " AND event.actor LIKE 'person:%' AND (event.kind = 'dataset.added' OR (event.kind = 'dataset.changed'"
        " AND convert_from(event.leaf, 'UTF8')::jsonb -> 'details' -> 'fields' ? 'labels'))), '[]'::jsonb)"
    )
