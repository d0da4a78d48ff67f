"""Services: programs with a secret of their own, owned by a vendor or the organisation."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word, one_of


class Service(Base):
    """A program that signs in with its id and a client secret; the secret is kept as an argon2 hash.

    `secret_seen_by`: the person who was last shown the secret, if that is not who made the service.
    """

    __tablename__ = "service"
    __table_args__ = (CheckConstraint(one_of("status", "active", "suspended"), name="status"),)

    id: Mapped[Key]
    vendor_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.vendor.id"), index=True)
    name: Mapped[str] = mapped_column(String(120))
    secret_hash: Mapped[Prose]
    status: Mapped[Word] = mapped_column(default="active")
    created_by: Mapped[Id]
    created_at: Mapped[CreatedAt]
    secret_rotated_at: Mapped[Moment | None]
    secret_seen_by: Mapped[Id | None]
