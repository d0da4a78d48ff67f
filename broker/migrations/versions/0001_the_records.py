"""the records"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "event",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("subject", sa.String(length=80), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_event")),
        sa.UniqueConstraint("id", name=op.f("uq_event_id")),
        schema="guestkey",
    )
    op.create_index("ix_event_actor_number", "event", ["actor", "number"], unique=False, schema="guestkey")
    op.create_index("ix_event_kind_number", "event", ["kind", "number"], unique=False, schema="guestkey")
    op.create_index("ix_event_subject_number", "event", ["subject", "number"], unique=False, schema="guestkey")
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
    op.create_table(
        "installation",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tag", sa.String(length=6), nullable=False),
        sa.Column("bootstrapped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_installation_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_installation")),
        schema="guestkey",
    )
    op.create_table(
        "kept_answer",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_kept_answer")),
        schema="guestkey",
    )
    op.create_index("ix_kept_answer_expires_at", "kept_answer", ["expires_at"], unique=False, schema="guestkey")
    op.create_table(
        "policy_revision",
        sa.Column("number", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("networks", sa.Text(), nullable=False),
        sa.Column("grammar", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.String(length=40), nullable=True),
        sa.Column("approved_by", sa.String(length=40), nullable=True),
        sa.Column(
            "applied_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_policy_revision")),
        schema="guestkey",
    )
    op.create_table(
        "proposal",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("act", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=80), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("proposed_by", sa.String(length=40), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("lapses_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.String(length=40), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "act IN ('bind_source', 'trust_source_mfa', 'give_role', 'reset_factor', 'apply_policy')",
            name=op.f("ck_proposal_act"),
        ),
        sa.CheckConstraint(
            "decided_by IS NULL OR decided_by <> proposed_by OR state = 'refused'", name=op.f("ck_proposal_two_people")
        ),
        sa.CheckConstraint("state IN ('pending', 'approved', 'refused', 'lapsed')", name=op.f("ck_proposal_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposal")),
        schema="guestkey",
    )
    op.create_index(
        "ix_proposal_pending",
        "proposal",
        ["created_at"],
        unique=False,
        schema="guestkey",
        postgresql_where=sa.text("state = 'pending'"),
    )
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
        "event_personal",
        sa.Column("commitment", sa.String(length=64), nullable=False),
        sa.Column("event_id", sa.String(length=40), nullable=False),
        sa.Column("field", sa.String(length=64), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.String(length=2000), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["guestkey.event.id"], name=op.f("fk_event_personal_event_id")),
        sa.PrimaryKeyConstraint("commitment", name=op.f("pk_event_personal")),
        schema="guestkey",
    )
    op.create_index(op.f("ix_event_personal_event_id"), "event_personal", ["event_id"], unique=False, schema="guestkey")
    op.create_table(
        "policy_in_force",
        sa.Column("singleton", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_policy_in_force_singleton")),
        sa.ForeignKeyConstraint(
            ["revision"], ["guestkey.policy_revision.number"], name=op.f("fk_policy_in_force_revision")
        ),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_policy_in_force")),
        schema="guestkey",
    )
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
