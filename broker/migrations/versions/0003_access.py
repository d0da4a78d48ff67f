"""Datasets, slices and offers; requests, grants and leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "dataset",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("nature", sa.String(length=64), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("owner_id", sa.String(length=40), nullable=True),
        sa.Column("retention_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("nature IN ('data', 'model')", name=op.f("ck_dataset_nature")),
        sa.CheckConstraint("status IN ('active', 'suspended', 'retired')", name=op.f("ck_dataset_status")),
        sa.ForeignKeyConstraint(["owner_id"], ["guestkey.person.id"], name=op.f("fk_dataset_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
        sa.UniqueConstraint("slug", name=op.f("uq_dataset_slug")),
        schema="guestkey",
    )
    op.create_table(
        "slice",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("binding", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("actions", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("state_detail", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("state IN ('registering', 'ready', 'failed', 'retired')", name=op.f("ck_slice_state")),
        sa.ForeignKeyConstraint(["dataset_id"], ["guestkey.dataset.id"], name=op.f("fk_slice_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slice")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_slice_dataset_id_name")),
        schema="guestkey",
    )
    op.create_index(
        "ix_slice_registering",
        "slice",
        ["state"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state = 'registering'"),
    )
    op.create_table(
        "offer",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("vendor_id", sa.String(length=40), nullable=False),
        sa.Column("made_by", sa.String(length=40), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["guestkey.dataset.id"], name=op.f("fk_offer_dataset_id")),
        sa.ForeignKeyConstraint(["vendor_id"], ["guestkey.vendor.id"], name=op.f("fk_offer_vendor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offer")),
        schema="guestkey",
    )
    op.create_index(op.f("ix_offer_vendor_id"), "offer", ["vendor_id"], unique=False, schema="guestkey")
    op.create_index(
        "uq_offer_live",
        "offer",
        ["dataset_id", "vendor_id"],
        unique=True,
        schema="guestkey",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "request",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("team_id", sa.String(length=40), nullable=True),
        sa.Column("service_id", sa.String(length=40), nullable=True),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("slice_name", sa.String(length=64), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("period", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("lapses_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.String(length=40), nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'refused', 'withdrawn', 'lapsed')", name=op.f("ck_request_state")
        ),
        sa.CheckConstraint("num_nonnulls(team_id, service_id) <= 1", name=op.f("ck_request_holder")),
        sa.CheckConstraint("period > 0", name=op.f("ck_request_period")),
        sa.ForeignKeyConstraint(["dataset_id"], ["guestkey.dataset.id"], name=op.f("fk_request_dataset_id")),
        sa.ForeignKeyConstraint(["decided_by"], ["guestkey.person.id"], name=op.f("fk_request_decided_by")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_request_person_id")),
        sa.ForeignKeyConstraint(["service_id"], ["guestkey.service.id"], name=op.f("fk_request_service_id")),
        sa.ForeignKeyConstraint(["team_id"], ["guestkey.team.id"], name=op.f("fk_request_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request")),
        schema="guestkey",
    )
    op.create_index(
        "ix_request_pending",
        "request",
        ["dataset_id", "created_at"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_request_person_id_created_at", "request", ["person_id", "created_at"], unique=False, schema="guestkey"
    )
    op.create_table(
        "grant",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("team_id", sa.String(length=40), nullable=True),
        sa.Column("service_id", sa.String(length=40), nullable=True),
        sa.Column("slice_name", sa.String(length=64), nullable=True),
        sa.Column("max_lifetime", sa.Integer(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=True),
        sa.Column("approved_by", sa.String(length=40), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.String(length=40), nullable=True),
        sa.Column("revoke_reason", sa.Text(), nullable=False),
        sa.CheckConstraint("num_nonnulls(person_id, team_id, service_id) = 1", name=op.f("ck_grant_holder")),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_grant_period")),
        sa.ForeignKeyConstraint(["approved_by"], ["guestkey.person.id"], name=op.f("fk_grant_approved_by")),
        sa.ForeignKeyConstraint(["dataset_id"], ["guestkey.dataset.id"], name=op.f("fk_grant_dataset_id")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_grant_person_id")),
        sa.ForeignKeyConstraint(["request_id"], ["guestkey.request.id"], name=op.f("fk_grant_request_id")),
        sa.ForeignKeyConstraint(["service_id"], ["guestkey.service.id"], name=op.f("fk_grant_service_id")),
        sa.ForeignKeyConstraint(["team_id"], ["guestkey.team.id"], name=op.f("fk_grant_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grant")),
        sa.UniqueConstraint("request_id", name=op.f("uq_grant_request_id")),
        schema="guestkey",
    )
    op.create_index(
        "ix_grant_dataset",
        "grant",
        ["dataset_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_index(
        "ix_grant_person",
        "grant",
        ["person_id", "dataset_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_index(
        "ix_grant_service",
        "grant",
        ["service_id", "dataset_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_index(
        "ix_grant_team",
        "grant",
        ["team_id", "dataset_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "lease",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("grant_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("service_id", sa.String(length=40), nullable=True),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("slice_id", sa.String(length=40), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("handle", sa.String(length=200), nullable=False),
        sa.Column("backend_lease_id", sa.String(length=400), nullable=True),
        sa.Column("policy_revision", sa.Integer(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("decision_id", sa.String(length=40), nullable=False),
        sa.Column("factor_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_cause", sa.String(length=64), nullable=True),
        sa.Column("end_by", sa.String(length=80), nullable=True),
        sa.Column("ending_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_by", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("holder_hash", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'active', 'revoking', 'revoked', 'expired', 'revoke_failed')",
            name=op.f("ck_lease_state"),
        ),
        sa.CheckConstraint("num_nonnulls(person_id, service_id) = 1", name=op.f("ck_lease_holder")),
        sa.ForeignKeyConstraint(["dataset_id"], ["guestkey.dataset.id"], name=op.f("fk_lease_dataset_id")),
        sa.ForeignKeyConstraint(["grant_id"], ["guestkey.grant.id"], name=op.f("fk_lease_grant_id")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_lease_person_id")),
        sa.ForeignKeyConstraint(["service_id"], ["guestkey.service.id"], name=op.f("fk_lease_service_id")),
        sa.ForeignKeyConstraint(["slice_id"], ["guestkey.slice.id"], name=op.f("fk_lease_slice_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
        schema="guestkey",
    )
    op.create_index(
        "ix_lease_ending",
        "lease",
        ["next_attempt_at"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state IN ('revoking', 'revoke_failed')"),
    )
    op.create_index(
        "ix_lease_live_dataset",
        "lease",
        ["dataset_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state IN ('pending', 'active', 'revoking', 'revoke_failed')"),
    )
    op.create_index(
        "ix_lease_live_expiry",
        "lease",
        ["expires_at"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state IN ('pending', 'active', 'revoking', 'revoke_failed')"),
    )
    op.create_index(
        "ix_lease_live_grant",
        "lease",
        ["grant_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state IN ('pending', 'active', 'revoking', 'revoke_failed')"),
    )
    op.create_index(
        "ix_lease_live_person",
        "lease",
        ["person_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state IN ('pending', 'active', 'revoking', 'revoke_failed')"),
    )
    op.create_index(
        "ix_lease_live_service",
        "lease",
        ["service_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state IN ('pending', 'active', 'revoking', 'revoke_failed')"),
    )
    op.create_index(
        "ix_lease_person_id_created_at", "lease", ["person_id", "created_at"], unique=False, schema="guestkey"
    )
    op.create_index(
        "ix_lease_service_id_created_at", "lease", ["service_id", "created_at"], unique=False, schema="guestkey"
    )
    op.create_index(
        "uq_lease_idempotency",
        "lease",
        ["holder_hash"],
        unique=True,
        schema="guestkey",
        postgresql_where=sa.text("holder_hash IS NOT NULL"),
    )
