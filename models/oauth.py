"""What the authorization server remembers: codes, and the opaque tokens of command lines and services."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word


class AuthorizationCode(Base):
    """A hashed authorization code (RFC 6749 §4.1) bound to a PKCE challenge; 60 seconds, once."""

    __tablename__ = "authorization_code"

    code_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    client_id: Mapped[Word]
    redirect_uri: Mapped[Prose]
    code_challenge: Mapped[str] = mapped_column(String(128))
    session_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.session.id"))
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Moment]
    used_at: Mapped[Moment | None]
    token_id: Mapped[Id | None]


class ApiToken(Base):
    """An opaque access token of a person's command line or of a service, kept as a hash, with its own factor time.

    `session_id`: the browser's session in which the person allowed it; it never outlives that one's absolute limit.
    """

    __tablename__ = "api_token"
    __table_args__ = (
        CheckConstraint("num_nonnulls(person_id, service_id) = 1", name="holder"),
        Index("ix_api_token_live", "person_id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_api_token_session", "session_id", postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[Key]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    person_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    service_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.service.id"))
    source_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.sign_in_source.id"))
    session_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.session.id"))
    client_id: Mapped[Word]
    created_at: Mapped[CreatedAt]
    last_seen_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    factor_at: Mapped[Moment | None]
    factor_method: Mapped[Word | None]
    ended_at: Mapped[Moment | None]
    end_cause: Mapped[Word | None]
