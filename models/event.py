"""Events: the audit log's entries, and the erasable clear text of what they commit to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, Index, LargeBinary, String, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Id, Word


class Event(Base):
    """One entry. `leaf` is its canonical JSON (RFC 8785): what a Merkle tree will hash, byte for byte.

    `number` and `at` are the database's; the application may insert the other columns, and nothing else.
    `kind`, `actor` and `subject` repeat what the leaf says, for looking up; `about` is every id that the leaf
    names, and those that the record names to which it happened.
    """

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_actor_number", "actor", "number"),
        Index("ix_event_subject_number", "subject", "number"),
        Index("ix_event_kind_number", "kind", "number"),
        Index("ix_event_about", "about", postgresql_using="gin"),
        Index("ix_event_at", "at"),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    id: Mapped[Id] = mapped_column(unique=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    kind: Mapped[Word]
    actor: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(80))
    leaf: Mapped[bytes] = mapped_column(LargeBinary)
    about: Mapped[list[str]] = mapped_column(ARRAY(String(40)), server_default=text("'{}'"))


class EventPersonal(Base):
    """The clear text behind a salted commitment in an event's leaf. Erasing it leaves the log intact."""

    __tablename__ = "event_personal"

    commitment: Mapped[str] = mapped_column(String(64), primary_key=True)
    event_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.event.id"), index=True)
    field: Mapped[Word]
    salt: Mapped[bytes] = mapped_column(LargeBinary)
    value: Mapped[str] = mapped_column(String(2000))
