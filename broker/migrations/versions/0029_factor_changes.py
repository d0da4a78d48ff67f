"""People are told of changes of their second factors; a token names the session that allowed it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_TOPICS = (
    "topic IN ('to_decide', 'own_datasets', 'own_requests', 'own_grants', 'staff', 'joins', 'two_person', 'failures',"
    " 'emergency', 'own_account')"
)


def upgrade() -> None:
    """Let the topic be chosen, and add the column."""
    op.drop_constraint(op.f("ck_notice_choice_topic"), "notice_choice", schema="guestkey")
    op.create_check_constraint(op.f("ck_notice_choice_topic"), "notice_choice", _TOPICS, schema="guestkey")
    op.add_column("api_token", sa.Column("session_id", sa.String(length=40), nullable=True), schema="guestkey")
    op.create_foreign_key(
        op.f("fk_api_token_session_id"),
        "api_token",
        "session",
        ["session_id"],
        ["id"],
        source_schema="guestkey",
        referent_schema="guestkey",
    )
    op.create_index(
        "ix_api_token_session",
        "api_token",
        ["session_id"],
        schema="guestkey",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
