"""Notices: what is to be told (the outbox), to whom it went and what became of it, people's choices, and channels."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word, one_of

TOPICS = (
    "to_decide",
    "own_datasets",
    "own_requests",
    "own_grants",
    "staff",
    "joins",
    "two_person",
    "failures",
    "emergency",
    "own_account",
)
# They come first, and no number of others holds them back.
URGENT_TOPICS = ("emergency", "failures")
CHOICES = ("now", "digest", "off")
DELIVERY_STATES = ("portal", "digest", "collected", "waiting", "delivered", "given_up")
CHANNEL_KINDS = ("webhook", "chat")


class Notice(Base):
    """That something is to be told, written with its cause. `told_at`: it has been turned into deliveries.

    `once` keeps what has no event of its own from being told twice.
    """

    __tablename__ = "notice"
    __table_args__ = (
        Index("ix_notice_untold", "next_attempt_at", postgresql_where=text("told_at IS NULL")),
        Index("ix_notice_told_at", "told_at"),
    )

    id: Mapped[Key]
    kind: Mapped[Word]
    actor: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(80))
    once: Mapped[str | None] = mapped_column(String(120), unique=True)
    created_at: Mapped[CreatedAt]
    next_attempt_at: Mapped[CreatedAt]
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    told_at: Mapped[Moment | None]


class Delivery(Base):
    """One notice for one person or one channel: the words, and what became of it. The id is the message's for ever.

    A person reads it in the portal whatever its state; `waiting` is to be sent, `digest` waits to be `collected`.
    `left_out`: of one that says so, how many messages its channel was spared.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        CheckConstraint(one_of("state", *DELIVERY_STATES), name="state"),
        CheckConstraint("num_nonnulls(person_id, channel_id) = 1", name="addressee"),
        UniqueConstraint("notice_id", "person_id"),
        UniqueConstraint("notice_id", "channel_id"),
        Index("ix_delivery_waiting", "next_attempt_at", postgresql_where=text("state = 'waiting'")),
        Index(
            "ix_delivery_urgent",
            "next_attempt_at",
            postgresql_where=text(f"state = 'waiting' AND {one_of('topic', *URGENT_TOPICS)}"),
        ),
        Index("ix_delivery_digest", "person_id", "id", postgresql_where=text("state = 'digest'")),
        Index("ix_delivery_person", "person_id", "id"),
        Index("ix_delivery_unread", "person_id", postgresql_where=text("read_at IS NULL")),
        Index("ix_delivery_channel", "channel_id", "id"),
        Index("ix_delivery_sent", "id", postgresql_where=text("state IN ('waiting', 'delivered', 'given_up')")),
        Index("ix_delivery_created_at", "created_at"),
    )

    id: Mapped[Key]
    notice_id: Mapped[Id]
    person_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    channel_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.notice_channel.id"))
    kind: Mapped[Word]
    topic: Mapped[Word]
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[Prose]
    path: Mapped[str] = mapped_column(String(200))
    state: Mapped[Word]
    created_at: Mapped[CreatedAt]
    next_attempt_at: Mapped[CreatedAt]
    claimed_until: Mapped[Moment | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    last_fault: Mapped[str] = mapped_column(String(200), default="", server_default=text("''"))
    left_out: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    ended_at: Mapped[Moment | None]
    read_at: Mapped[Moment | None]


class NoticeChoice(Base):
    """How one person wants one topic; without a row, at once."""

    __tablename__ = "notice_choice"
    __table_args__ = (
        CheckConstraint(one_of("topic", *TOPICS), name="topic"),
        CheckConstraint(one_of("choice", *CHOICES), name="choice"),
    )

    person_id: Mapped[str] = mapped_column(String(40), ForeignKey("guestkey.person.id"), primary_key=True)
    topic: Mapped[str] = mapped_column(String(64), primary_key=True)
    choice: Mapped[Word]


class NoticeAddress(Base):
    """Where a person's notices go: the address their provider last called verified, and when their digest is due.

    Never an identity: nobody is found by it.
    """

    __tablename__ = "notice_address"
    __table_args__ = (
        CheckConstraint("digest_hour BETWEEN 0 AND 23", name="digest_hour"),
        Index("ix_notice_address_digest_at", "digest_at"),
    )

    person_id: Mapped[str] = mapped_column(String(40), ForeignKey("guestkey.person.id"), primary_key=True)
    address: Mapped[str] = mapped_column(String(320), default="", server_default=text("''"))
    digest_hour: Mapped[int] = mapped_column(SmallInteger, default=8, server_default=text("8"))
    digest_zone: Mapped[Word] = mapped_column(default="UTC", server_default=text("'UTC'"))
    digest_at: Mapped[Moment | None]


class NoticeChannel(Base):
    """A webhook or a chat of the organisation's. Its target and its signing secret are wrapped; `shown` is harmless."""

    __tablename__ = "notice_channel"
    __table_args__ = (CheckConstraint(one_of("kind", *CHANNEL_KINDS), name="kind"),)

    id: Mapped[Key]
    kind: Mapped[Word]
    name: Mapped[str] = mapped_column(String(120))
    shown: Mapped[str] = mapped_column(String(300))
    wrapped: Mapped[Prose]
    topics: Mapped[list[str]]
    made_by: Mapped[Id]
    created_at: Mapped[CreatedAt]
    removed_at: Mapped[Moment | None]
