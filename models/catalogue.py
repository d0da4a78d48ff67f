"""What a connected database holds, by name: for making slices. Columns and estimates, never a value."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Moment, Prose, Word, one_of

CATALOGUE_STATES = ("waiting", "ready", "failed")


class Catalogue(Base):
    """One connection's catalogue, and how its last reading went. `cut` says that there is more than was taken in."""

    __tablename__ = "catalogue"
    __table_args__ = (
        CheckConstraint(one_of("state", *CATALOGUE_STATES), name="state"),
        Index("ix_catalogue_waiting", "state", postgresql_where=text("state = 'waiting'")),
    )

    connection: Mapped[Word] = mapped_column(primary_key=True)
    state: Mapped[Word]
    detail: Mapped[Prose] = mapped_column(default="")
    asked_by: Mapped[Id]
    asked_at: Mapped[CreatedAt]
    read_at: Mapped[Moment | None]
    tables: Mapped[int] = mapped_column(Integer, default=0)
    cut: Mapped[bool] = mapped_column(default=False)


class CatalogueTable(Base):
    """One table or view the registrar may read. `rows` is PostgreSQL's estimate; `notes` what is special about it.

    A column: `{name, type, usable, distinct, width}`; `distinct` is the estimated share of rows with a value of their
    own, `width` the average bytes of a value, each null where PostgreSQL does not know.
    """

    __tablename__ = "catalogue_table"

    connection: Mapped[Word] = mapped_column(
        ForeignKey("guestkey.catalogue.connection", name="fk_catalogue_table_connection_catalogue"), primary_key=True
    )
    schema: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    rows: Mapped[int | None] = mapped_column(BigInteger)
    usable: Mapped[bool]
    notes: Mapped[list[str]]
    columns: Mapped[list[Any]]


class DatasetDraft(Base):
    """A dataset or slice somebody is describing, step by step; gone when registered, or after a week."""

    __tablename__ = "dataset_draft"
    __table_args__ = (Index("ix_dataset_draft_expires", "expires_at"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    made_by: Mapped[Id]
    content: Mapped[dict[str, Any]]
    expires_at: Mapped[Moment]
