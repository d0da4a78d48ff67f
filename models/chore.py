"""Work that recurs, shared by all workers, and the backends' places that did not answer when last asked."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, String
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Prose


class Chore(Base):
    """When a piece of recurring work is due next, for whichever worker takes it on first."""

    __tablename__ = "chore"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class UnreachablePlace(Base):
    """A place that could not be asked which credentials it holds, since when and why; gone once it answers."""

    __tablename__ = "silent_place"

    kind: Mapped[str] = mapped_column(String(64), primary_key=True)
    place: Mapped[str] = mapped_column(String(200), primary_key=True)
    since: Mapped[CreatedAt]
    why: Mapped[Prose]
