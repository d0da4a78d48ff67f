"""Invitations, sign-ins under way, sessions, tokens and second factors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "invitation",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        sa.Column("source_id", sa.String(length=40), nullable=True),
        sa.Column("vendor_id", sa.String(length=40), nullable=True),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("org_role", sa.String(length=64), nullable=True),
        sa.Column("role_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("redeemed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("redeemed_by", sa.String(length=40), nullable=True),
        sa.CheckConstraint("(purpose = 'join') = (person_id IS NULL)", name=op.f("ck_invitation_person")),
        sa.CheckConstraint("purpose IN ('join', 'enrol_factor', 'reset_factor')", name=op.f("ck_invitation_purpose")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_invitation_person_id")),
        sa.ForeignKeyConstraint(["source_id"], ["guestkey.sign_in_source.id"], name=op.f("fk_invitation_source_id")),
        sa.ForeignKeyConstraint(["vendor_id"], ["guestkey.vendor.id"], name=op.f("fk_invitation_vendor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitation")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invitation_token_hash")),
        schema="guestkey",
    )
    op.create_table(
        "sign_in_attempt",
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=False),
        sa.Column("source_id", sa.String(length=40), nullable=False),
        sa.Column("invitation_id", sa.String(length=40), nullable=True),
        sa.Column("asked_acr", sa.String(), nullable=True),
        sa.Column("next_path", sa.Text(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["invitation_id"], ["guestkey.invitation.id"], name=op.f("fk_sign_in_attempt_invitation_id")
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["guestkey.sign_in_source.id"], name=op.f("fk_sign_in_attempt_source_id")
        ),
        sa.PrimaryKeyConstraint("state_hash", name=op.f("pk_sign_in_attempt")),
        schema="guestkey",
    )
    op.create_index("ix_sign_in_attempt_expires_at", "sign_in_attempt", ["expires_at"], unique=False, schema="guestkey")
    op.create_table(
        "session",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("source_id", sa.String(length=40), nullable=False),
        sa.Column("csrf_token", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signed_in_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("factor_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("factor_method", sa.String(length=64), nullable=True),
        sa.Column("enrolment_allowed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_cause", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_session_person_id")),
        sa.ForeignKeyConstraint(["source_id"], ["guestkey.sign_in_source.id"], name=op.f("fk_session_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_session_token_hash")),
        schema="guestkey",
    )
    op.create_index(
        "ix_session_live",
        "session",
        ["person_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("service_id", sa.String(length=40), nullable=True),
        sa.Column("source_id", sa.String(length=40), nullable=True),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("factor_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("factor_method", sa.String(length=64), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_cause", sa.String(length=64), nullable=True),
        sa.CheckConstraint("num_nonnulls(person_id, service_id) = 1", name=op.f("ck_api_token_holder")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_api_token_person_id")),
        sa.ForeignKeyConstraint(["service_id"], ["guestkey.service.id"], name=op.f("fk_api_token_service_id")),
        sa.ForeignKeyConstraint(["source_id"], ["guestkey.sign_in_source.id"], name=op.f("fk_api_token_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_token_token_hash")),
        schema="guestkey",
    )
    op.create_index(
        "ix_api_token_live",
        "api_token",
        ["person_id"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "authorization_code",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("code_challenge", sa.String(length=128), nullable=False),
        sa.Column("session_id", sa.String(length=40), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_id", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["guestkey.session.id"], name=op.f("fk_authorization_code_session_id")),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_authorization_code")),
        schema="guestkey",
    )
    op.create_table(
        "totp_factor",
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("wrapped_secret", sa.Text(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_totp_factor_person_id")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_totp_factor")),
        schema="guestkey",
    )
    op.create_table(
        "passkey",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("credential_id", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_passkey_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passkey")),
        sa.UniqueConstraint("credential_id", name=op.f("uq_passkey_credential_id")),
        schema="guestkey",
    )
    op.create_index(op.f("ix_passkey_person_id"), "passkey", ["person_id"], unique=False, schema="guestkey")
    op.create_table(
        "recovery_code",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_recovery_code_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_code")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_recovery_code_code_hash")),
        schema="guestkey",
    )
    op.create_index(op.f("ix_recovery_code_person_id"), "recovery_code", ["person_id"], unique=False, schema="guestkey")
    op.create_table(
        "factor_challenge",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("holder_id", sa.String(length=40), nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        sa.Column("challenge", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_factor_challenge")),
        schema="guestkey",
    )
    op.create_index(
        op.f("ix_factor_challenge_holder_id"), "factor_challenge", ["holder_id"], unique=False, schema="guestkey"
    )
