"""Notices: the outbox, deliveries, people's choices and addresses, and channels."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KEY = sa.String(length=40)
WORD = sa.String(length=64)
MOMENT = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Make the tables. Notices and deliveries are deleted after a while: the log of events is what stays."""
    _make_notice()
    _make_channel()
    _make_delivery()
    _make_choices()
    op.create_index(
        "ix_grant_ends_at", "grant", ["ends_at"], schema="guestkey", postgresql_where=sa.text("revoked_at IS NULL")
    )
    for table in ("notice", "delivery"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON guestkey.{table} TO guestkey_app")
    for table in ("notice_choice", "notice_address"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE ON guestkey.{table} TO guestkey_app")
    op.execute("GRANT SELECT, INSERT ON guestkey.notice_channel TO guestkey_app")
    # A removed channel keeps its name for the log of deliveries, not its target and secret.
    op.execute("GRANT UPDATE (removed_at, wrapped) ON guestkey.notice_channel TO guestkey_app")


def _make_notice() -> None:
    op.create_table(
        "notice",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("subject", sa.String(length=80), nullable=False),
        sa.Column("once", sa.String(length=120), nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("next_attempt_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("told_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
        sa.UniqueConstraint("once", name=op.f("uq_notice_once")),
        schema="guestkey",
    )
    _index("notice", "ix_notice_untold", ["next_attempt_at"], "told_at IS NULL")
    _index("notice", "ix_notice_told_at", ["told_at"])


def _make_channel() -> None:
    op.create_table(
        "notice_channel",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("shown", sa.String(length=300), nullable=False),
        sa.Column("wrapped", sa.Text(), nullable=False),
        sa.Column("topics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("made_by", KEY, nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("removed_at", MOMENT, nullable=True),
        sa.CheckConstraint("kind IN ('webhook', 'chat')", name=op.f("ck_notice_channel_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice_channel")),
        schema="guestkey",
    )


def _make_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", KEY, nullable=False),
        sa.Column("notice_id", KEY, nullable=False),
        sa.Column("person_id", KEY, nullable=True),
        sa.Column("channel_id", KEY, nullable=True),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("topic", WORD, nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("next_attempt_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("claimed_until", MOMENT, nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_fault", sa.String(length=200), server_default=sa.text("''"), nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("read_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('portal', 'digest', 'collected', 'waiting', 'delivered', 'given_up')",
            name=op.f("ck_delivery_state"),
        ),
        sa.CheckConstraint("num_nonnulls(person_id, channel_id) = 1", name=op.f("ck_delivery_addressee")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_delivery_person_id")),
        sa.ForeignKeyConstraint(["channel_id"], ["guestkey.notice_channel.id"], name=op.f("fk_delivery_channel_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("notice_id", "person_id", name=op.f("uq_delivery_notice_id_person_id")),
        sa.UniqueConstraint("notice_id", "channel_id", name=op.f("uq_delivery_notice_id_channel_id")),
        schema="guestkey",
    )
    _index("delivery", "ix_delivery_waiting", ["next_attempt_at"], "state = 'waiting'")
    _index("delivery", "ix_delivery_digest", ["person_id", "id"], "state = 'digest'")
    _index("delivery", "ix_delivery_person", ["person_id", "id"])
    _index("delivery", "ix_delivery_unread", ["person_id"], "read_at IS NULL")
    _index("delivery", "ix_delivery_channel", ["channel_id", "id"])
    _index("delivery", "ix_delivery_sent", ["id"], "state IN ('waiting', 'delivered', 'given_up')")
    _index("delivery", "ix_delivery_created_at", ["created_at"])


def _make_choices() -> None:
    op.create_table(
        "notice_choice",
        sa.Column("person_id", KEY, nullable=False),
        sa.Column("topic", WORD, nullable=False),
        sa.Column("choice", WORD, nullable=False),
        sa.CheckConstraint(
            "topic IN ('to_decide', 'own_requests', 'own_grants', 'staff', 'joins', 'two_person', 'failures',"
            " 'emergency')",
            name=op.f("ck_notice_choice_topic"),
        ),
        sa.CheckConstraint("choice IN ('now', 'digest', 'off')", name=op.f("ck_notice_choice_choice")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_notice_choice_person_id")),
        sa.PrimaryKeyConstraint("person_id", "topic", name=op.f("pk_notice_choice")),
        schema="guestkey",
    )
    op.create_table(
        "notice_address",
        sa.Column("person_id", KEY, nullable=False),
        sa.Column("address", sa.String(length=320), server_default=sa.text("''"), nullable=False),
        sa.Column("digest_hour", sa.SmallInteger(), server_default=sa.text("8"), nullable=False),
        sa.Column("digest_zone", WORD, server_default=sa.text("'UTC'"), nullable=False),
        sa.Column("digest_at", MOMENT, nullable=True),
        sa.CheckConstraint("digest_hour BETWEEN 0 AND 23", name=op.f("ck_notice_address_digest_hour")),
        sa.ForeignKeyConstraint(["person_id"], ["guestkey.person.id"], name=op.f("fk_notice_address_person_id")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_notice_address")),
        schema="guestkey",
    )
    _index("notice_address", "ix_notice_address_digest_at", ["digest_at"])


def _index(table: str, name: str, columns: list[str], where: str | None = None) -> None:
    condition = sa.text(where) if where else None
    op.create_index(name, table, columns, schema="guestkey", postgresql_where=condition)
