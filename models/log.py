"""The log's hash tree: which event stands where, the roots of its full tiles, and what was signed over it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, LargeBinary, SmallInteger, String, func
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base

TILE_LEVELS = 8
"""Hashes are kept at every eighth level only; those between are made from at most 256 of them."""


class LogEntry(Base):
    """One event's place in the log, from 0 on, in the order the sequencer found them committed. Never changed."""

    __tablename__ = "log_entry"

    index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_number: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("guestkey.event.number", name="fk_log_entry_event_number_event"), unique=True
    )
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class LogNode(Base):
    """The root of 2**level entries, the first of which is index * 2**level; `level` is a multiple of TILE_LEVELS."""

    __tablename__ = "log_node"

    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    index: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class LogCheckpoint(Base):
    """A signed statement of how long the log is and what its root is. `key` is the public key that checks `note`."""

    __tablename__ = "log_checkpoint"

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    note: Mapped[str] = mapped_column(String(1000))
    key: Mapped[str] = mapped_column(String(300))
