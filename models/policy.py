"""Policy revisions: the rules in force, and those before them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Integer
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Moment, Prose


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
    """The one row that says which revision counts. Every deciding transaction locks and reads it.

    While `closed_at` is set nothing is in force and everything is denied. Grants made before `held_before` and not
    confirmed since are held: whoever restores a backup revives grants that had been revoked.
    """

    __tablename__ = "policy_in_force"
    __table_args__ = (CheckConstraint("singleton = 1", name="singleton"),)

    singleton: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    revision: Mapped[int] = mapped_column(ForeignKey("guestkey.policy_revision.number"))
    closed_at: Mapped[Moment | None]
    closed_why: Mapped[Prose] = mapped_column(default="", server_default="")
    held_before: Mapped[Moment | None]
