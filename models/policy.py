"""Policy revisions: the rules in force, and those before them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Integer
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Prose


class PolicyRevision(Base):
    """A numbered set of rules, as text. Immutable once written."""

    __tablename__ = "policy_revision"

    number: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    rules: Mapped[Prose]
    networks: Mapped[Prose] = mapped_column(default="")
    grammar: Mapped[Prose]
    proposed_by: Mapped[Id | None]
    approved_by: Mapped[Id | None]
    applied_at: Mapped[CreatedAt]


class PolicyInForce(Base):
    """The one row that says which revision counts. Every deciding transaction locks and reads it."""

    __tablename__ = "policy_in_force"
    __table_args__ = (CheckConstraint("singleton = 1", name="singleton"),)

    singleton: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    revision: Mapped[int] = mapped_column(ForeignKey("guestkey.policy_revision.number"))
