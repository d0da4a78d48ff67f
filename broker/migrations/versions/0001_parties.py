"""Vendors, where their people sign in, people, teams and services."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "vendor",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "status IN ('onboarding', 'active', 'suspended', 'offboarded')", name=op.f("ck_vendor_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vendor")),
        sa.UniqueConstraint("name", name=op.f("uq_vendor_name")),
        schema="guestkey",
    )
    op.create_table(
        "sign_in_source",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("wrapped_client_secret", sa.String(), nullable=True),
        sa.Column("required_claims", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("vendor_id", sa.String(length=40), nullable=True),
        sa.Column("trusts_mfa", sa.Boolean(), nullable=False),
        sa.Column("mfa_values", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("status IN ('active', 'disabled')", name=op.f("ck_sign_in_source_status")),
        sa.ForeignKeyConstraint(["vendor_id"], ["guestkey.vendor.id"], name=op.f("fk_sign_in_source_vendor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_source")),
        sa.UniqueConstraint("name", name=op.f("uq_sign_in_source_name")),
        schema="guestkey",
    )
    op.create_index(
        op.f("ix_sign_in_source_vendor_id"), "sign_in_source", ["vendor_id"], unique=False, schema="guestkey"
    )
    op.create_table(
        "person",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("source_id", sa.String(length=40), nullable=False),
        sa.Column("vendor_id", sa.String(length=40), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("invited_by", sa.String(length=40), nullable=True),
        sa.Column("failed_codes", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("status IN ('pending', 'active', 'suspended')", name=op.f("ck_person_status")),
        sa.ForeignKeyConstraint(["source_id"], ["guestkey.sign_in_source.id"], name=op.f("fk_person_source_id")),
        sa.ForeignKeyConstraint(["vendor_id"], ["guestkey.vendor.id"], name=op.f("fk_person_vendor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_person_issuer_subject")),
        schema="guestkey",
    )
    op.create_index(op.f("ix_person_vendor_id"), "person", ["vendor_id"], unique=False, schema="guestkey")
    op.create_table(
        "role_held",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("given_by", sa.String(length=40), nullable=True),
        sa.Column("given_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'auditor', 'lead')", name=op.f("ck_role_held_role")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_role_held_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role_held")),
        schema="guestkey",
    )
    op.create_index(
        "uq_role_held_live",
        "role_held",
        ["person_id", "role"],
        unique=True,
        schema="guestkey",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "team",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("vendor_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["vendor_id"], ["guestkey.vendor.id"], name=op.f("fk_team_vendor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_team")),
        sa.UniqueConstraint("vendor_id", "name", name=op.f("uq_team_vendor_id_name")),
        schema="guestkey",
    )
    op.create_table(
        "team_member",
        sa.Column("team_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_team_member_person_id")),
        sa.ForeignKeyConstraint(["team_id"], ["guestkey.team.id"], name=op.f("fk_team_member_team_id")),
        sa.PrimaryKeyConstraint("team_id", "person_id", name=op.f("pk_team_member")),
        schema="guestkey",
    )
    op.create_index(op.f("ix_team_member_person_id"), "team_member", ["person_id"], unique=False, schema="guestkey")
    op.create_table(
        "service",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("vendor_id", sa.String(length=40), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("secret_rotated_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("ck_service_status")),
        sa.ForeignKeyConstraint(["vendor_id"], ["guestkey.vendor.id"], name=op.f("fk_service_vendor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service")),
        schema="guestkey",
    )
    op.create_index(op.f("ix_service_vendor_id"), "service", ["vendor_id"], unique=False, schema="guestkey")
