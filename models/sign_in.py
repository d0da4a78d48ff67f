"""Signing in: the sources people come from, invitations to join, and sign-ins under way."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word, one_of

INVITATION_PURPOSES = ("join", "enrol_factor", "reset_factor")


class SignInSource(Base):
    """An OIDC issuer, client and required claims, bound to the organisation (`vendor_id` null) or one vendor.

    `other_audiences`: whom its ID tokens may be for beside us.
    """

    __tablename__ = "sign_in_source"
    __table_args__ = (CheckConstraint(one_of("status", "active", "disabled"), name="status"),)

    id: Mapped[Key]
    name: Mapped[str] = mapped_column(String(120), unique=True)
    issuer: Mapped[Prose]
    client_id: Mapped[Prose]
    wrapped_client_secret: Mapped[str | None] = mapped_column(default=None)
    required_claims: Mapped[dict[str, Any]]
    vendor_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.vendor.id"), index=True)
    trusts_mfa: Mapped[bool] = mapped_column(default=False)
    mfa_values: Mapped[list[str]] = mapped_column(default=list)
    other_audiences: Mapped[list[str]] = mapped_column(default=list, server_default=text("'[]'::jsonb"))
    status: Mapped[Word] = mapped_column(default="active")
    created_at: Mapped[CreatedAt]


class SourceFailure(Base):
    """Why the last sign-in at a source failed, when, and how often in a row for that reason. For operators."""

    __tablename__ = "source_failure"

    source_id: Mapped[Key] = mapped_column(ForeignKey("guestkey.sign_in_source.id"))
    why: Mapped[Prose]
    at: Mapped[Moment]
    times: Mapped[int] = mapped_column(default=1)


class Invitation(Base):
    """A single-use link: joining a party through a source, or (re-)enrolling a factor. Only a hash is kept.

    `team_id`: the team they join once they are confirmed. `meant_for`: whom a line of a file meant, so that the same
    file sent again invites nobody twice; a note of the inviter's, never compared with who signs in.
    """

    __tablename__ = "invitation"
    __table_args__ = (
        CheckConstraint(one_of("purpose", *INVITATION_PURPOSES), name="purpose"),
        CheckConstraint("(purpose = 'join') = (person_id IS NULL)", name="person"),
        Index("ix_invitation_meant_for", "source_id", "meant_for", postgresql_where=text("meant_for <> ''")),
        Index("ix_invitation_redeemed_by", "redeemed_by"),
    )

    id: Mapped[Key]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    purpose: Mapped[Word]
    source_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.sign_in_source.id"))
    vendor_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.vendor.id"))
    person_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    org_role: Mapped[Word | None]
    role_until: Mapped[Moment | None]
    label: Mapped[str] = mapped_column(String(200), default="")
    meant_for: Mapped[str] = mapped_column(String(320), default="", server_default="")
    team_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.team.id"))
    created_by: Mapped[str | None] = mapped_column(String(80))
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Moment]
    redeemed_at: Mapped[Moment | None]
    redeemed_by: Mapped[Id | None]


class SignInAttempt(Base):
    """A sign-in on its way to the provider and back, bound to one browser. Ten minutes at most.

    Nonce and PKCE verifier are derived from the browser's cookie, of which only a hash is here.
    """

    __tablename__ = "sign_in_attempt"
    __table_args__ = (Index("ix_sign_in_attempt_expires_at", "expires_at"),)

    state_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    browser_hash: Mapped[bytes] = mapped_column(LargeBinary)
    source_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.sign_in_source.id"))
    invitation_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.invitation.id"))
    asked_acr: Mapped[str | None]
    next_path: Mapped[Prose] = mapped_column(default="/")
    started_at: Mapped[CreatedAt]
    expires_at: Mapped[Moment]


class Session(Base):
    """A signed-in browser. The cookie's value is kept as a hash; the second factor is proven per session."""

    __tablename__ = "session"
    __table_args__ = (Index("ix_session_live", "person_id", postgresql_where=text("ended_at IS NULL")),)

    id: Mapped[Key]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    person_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.person.id"))
    source_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.sign_in_source.id"))
    csrf_token: Mapped[Prose]
    user_agent: Mapped[str] = mapped_column(String(200), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[CreatedAt]
    last_seen_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    signed_in_at: Mapped[Moment]
    factor_at: Mapped[Moment | None]
    factor_method: Mapped[Word | None]
    enrolment_allowed_until: Mapped[Moment | None]
    ended_at: Mapped[Moment | None]
    end_cause: Mapped[Word | None]
