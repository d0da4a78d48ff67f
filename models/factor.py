"""Second factors of people: one-time codes, passkeys, recovery codes, and the challenges under way."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word


class TotpFactor(Base):
    """A time-based one-time-code secret (RFC 6238), wrapped by transit with the person's id as context.

    `last_step` is the newest 30-second step a code was accepted for: a code is good only for a later one.
    """

    __tablename__ = "totp_factor"

    person_id: Mapped[Key] = mapped_column(ForeignKey("guestkey.person.id"))
    wrapped_secret: Mapped[Prose]
    last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[CreatedAt]
    confirmed_at: Mapped[Moment | None]


class Passkey(Base):
    """A WebAuthn credential of a person; only its public half is here."""

    __tablename__ = "passkey"

    id: Mapped[Key]
    person_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.person.id"), index=True)
    credential_id: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    sign_count: Mapped[int] = mapped_column(BigInteger, default=0)
    name: Mapped[str] = mapped_column(String(80), default="Passkey")
    created_at: Mapped[CreatedAt]
    last_used_at: Mapped[Moment | None]


class RecoveryCode(Base):
    """A hashed recovery code: good once, and only for enrolling a new factor."""

    __tablename__ = "recovery_code"

    id: Mapped[Key]
    person_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.person.id"), index=True)
    code_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[CreatedAt]
    used_at: Mapped[Moment | None]


class FactorChallenge(Base):
    """A WebAuthn challenge, a wrapped one-time-code secret not confirmed yet, or a wish to be confirmed in the browser,
    of one session or API token.

    Good once and for minutes, for its `purpose` only.
    """

    __tablename__ = "factor_challenge"

    id: Mapped[Key]
    holder_id: Mapped[Id] = mapped_column(index=True)
    purpose: Mapped[Word]
    challenge: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[Moment]
