"""What the application role may do: nothing that rewrites the audit log or a policy revision."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHANGED_IN_PLACE = (
    "api_token",
    "authorization_code",
    "dataset",
    "grant",
    "installation",
    "invitation",
    "kept_answer",
    "lease",
    "offer",
    "passkey",
    "factor_challenge",
    "person",
    "policy_in_force",
    "proposal",
    "recovery_code",
    "request",
    "role_held",
    "service",
    "session",
    "sign_in_attempt",
    "sign_in_source",
    "slice",
    "team",
    "team_member",
    "totp_factor",
    "vendor",
)
# Short-lived or replaceable rows; everything else stays, so that history can be told.
DELETED = (
    "authorization_code",
    "kept_answer",
    "passkey",
    "factor_challenge",
    "recovery_code",
    "sign_in_attempt",
    "team_member",
    "totp_factor",
)


def upgrade() -> None:
    """Grant the application role `guestkey_app` its rights, table by table and, for the log, column by column."""
    for table in CHANGED_IN_PLACE:
        op.execute(f'GRANT SELECT, INSERT, UPDATE ON guestkey."{table}" TO guestkey_app')
    for table in DELETED:
        op.execute(f'GRANT DELETE ON guestkey."{table}" TO guestkey_app')
    # Columns, not the table: with a plain INSERT grant the number could be chosen and the time back-dated.
    op.execute("GRANT SELECT, INSERT (id, kind, actor, subject, leaf) ON guestkey.event TO guestkey_app")
    op.execute("GRANT SELECT, INSERT ON guestkey.event_personal TO guestkey_app")
    op.execute(
        "GRANT SELECT, INSERT (rules, networks, grammar, proposed_by, approved_by)"
        " ON guestkey.policy_revision TO guestkey_app"
    )
    op.execute("GRANT SELECT ON guestkey.alembic_version TO guestkey_app")
