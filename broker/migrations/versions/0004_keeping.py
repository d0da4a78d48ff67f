"""Events, policy revisions, the installation, proposals and kept answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
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
