"""The installation itself, acts that wait for a second admin, and answers kept for repeated requests."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word, one_of

PROPOSAL_ACTS = (
    "bind_source",
    "trust_source_mfa",
    "give_role",
    "reset_factor",
    "apply_policy",
    "change_dataset",
    "add_slice",
    "rotate_secret",
    "add_member",
)


class Installation(Base):
    """One row: this installation's name in every handle (`tag`, 6 characters) and when it was bootstrapped."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("singleton = 1", name="singleton"),)

    singleton: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    tag: Mapped[str] = mapped_column(String(6))
    bootstrapped_at: Mapped[Moment | None]
    created_at: Mapped[CreatedAt]


class Proposal(Base):
    """An act that needs a second admin: proposed by one, approved by another, then carried out, once."""

    __tablename__ = "proposal"
    __table_args__ = (
        CheckConstraint(one_of("act", *PROPOSAL_ACTS), name="act"),
        CheckConstraint(one_of("state", "pending", "approved", "refused", "lapsed"), name="state"),
        CheckConstraint("decided_by IS NULL OR decided_by <> proposed_by OR state = 'refused'", name="two_people"),
        Index("ix_proposal_pending", "created_at", postgresql_where=text("state = 'pending'")),
    )

    id: Mapped[Key]
    act: Mapped[Word]
    subject: Mapped[str] = mapped_column(String(80), default="")
    details: Mapped[dict[str, Any]]
    state: Mapped[Word] = mapped_column(default="pending")
    proposed_by: Mapped[Id]
    created_at: Mapped[CreatedAt]
    lapses_at: Mapped[Moment]
    decided_by: Mapped[Id | None]
    decided_at: Mapped[Moment | None]
    reason: Mapped[Prose] = mapped_column(default="")

    @property
    def approver(self) -> str:
        """Who approved it, as events name them."""
        return f"person:{self.decided_by}"


class StoredResponse(Base):
    """The answer to a request made with an idempotency key, for repeats within a day. Never holds a secret."""

    __tablename__ = "kept_answer"
    __table_args__ = (Index("ix_kept_answer_expires_at", "expires_at"),)

    key_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    request_hash: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int]
    body: Mapped[dict[str, Any] | None]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Moment]
