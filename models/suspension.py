"""Suspensions: somebody or something shut out at once, and what became of each credential."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word, one_of

SUSPENDED = ("vendor", "person", "dataset", "installation")


class Suspension(Base):
    """One suspension. `expected` is what its dry run had shown, `found` what there was at that moment.

    Closing the whole installation is one too. `name` is the target's then; `message` is what those shut out are told.
    Its leases carry its id.
    """

    __tablename__ = "suspension"
    __table_args__ = (
        CheckConstraint(one_of("what", *SUSPENDED), name="what"),
        Index("uq_suspension_open", "what", "target_id", unique=True, postgresql_where=text("resumed_at IS NULL")),
        Index("ix_suspension_by_id", "suspended_by", "id"),
    )

    id: Mapped[Key]
    what: Mapped[Word]
    target_id: Mapped[Id]
    name: Mapped[str] = mapped_column(String(200))
    reason: Mapped[Prose]
    message: Mapped[Prose] = mapped_column(default="")
    expected: Mapped[dict[str, Any] | None]
    found: Mapped[dict[str, Any]]
    suspended_by: Mapped[Id]
    started_at: Mapped[CreatedAt]
    resumed_at: Mapped[Moment | None]
    resumed_by: Mapped[Id | None]
