"""Vendors: third parties whose staff get access."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Key, Word, begins, one_of

VENDOR_STATUSES = ("onboarding", "active", "suspended", "offboarded")


class Vendor(Base):
    """A third party. Only `active` vendors' people and services get credentials."""

    __tablename__ = "vendor"
    __table_args__ = (CheckConstraint(one_of("status", *VENDOR_STATUSES), name="status"), begins("vendor", "name"))

    id: Mapped[Key]
    name: Mapped[str] = mapped_column(String(120), unique=True)
    status: Mapped[Word] = mapped_column(default="onboarding")
    created_at: Mapped[CreatedAt]
