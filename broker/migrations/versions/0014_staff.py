"""Invitations that name a team and whom they are meant for, and requests for one of a lead's own staff."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

KEY = sa.String(length=40)


def upgrade() -> None:
    """Add the columns, and an index behind each question asked of them."""
    op.add_column("invitation", _text("meant_for", 320), schema="guestkey")
    op.add_column("invitation", sa.Column("team_id", KEY, nullable=True), schema="guestkey")
    op.create_foreign_key(
        op.f("fk_invitation_team_id"),
        "invitation",
        "team",
        ["team_id"],
        ["id"],
        source_schema="guestkey",
        referent_schema="guestkey",
    )
    op.create_index(
        "ix_invitation_meant_for",
        "invitation",
        ["source_id", "meant_for"],
        schema="guestkey",
        postgresql_where=sa.text("meant_for <> ''"),
    )
    op.create_index("ix_invitation_redeemed_by", "invitation", ["redeemed_by"], schema="guestkey")
    op.add_column("request", sa.Column("for_person_id", KEY, nullable=True), schema="guestkey")
    op.create_foreign_key(
        op.f("fk_request_for_person_id"),
        "request",
        "person",
        ["for_person_id"],
        ["id"],
        source_schema="guestkey",
        referent_schema="guestkey",
    )
    op.create_check_constraint(
        op.f("ck_request_for_person"),
        "request",
        "num_nonnulls(for_person_id, team_id, service_id) <= 1",
        schema="guestkey",
    )
    op.create_index(
        "ix_request_for_person_id",
        "request",
        ["for_person_id"],
        schema="guestkey",
        postgresql_where=sa.text("for_person_id IS NOT NULL"),
    )


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), server_default=sa.text("''"), nullable=False)
