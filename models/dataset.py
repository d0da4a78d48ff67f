"""Datasets, their slices, and the offers that make them exist for a vendor."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word, begins, one_of

DATASET_STATUSES = ("active", "suspended", "retired")
SLICE_STATES = ("registering", "ready", "changed", "failed", "retired")


class Dataset(Base):
    """What is protected: data, or an AI model's weights. `labels` look like `classification:internal`.

    `labelled_by`: the people who proposed the labels it has; they get no credentials for it.
    """

    __tablename__ = "dataset"
    __table_args__ = (
        CheckConstraint(one_of("status", *DATASET_STATUSES), name="status"),
        CheckConstraint(one_of("nature", "data", "model"), name="nature"),
        begins("dataset", "slug"),
        begins("dataset", "title"),
    )

    id: Mapped[Key]
    slug: Mapped[Word] = mapped_column(unique=True)
    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[Prose] = mapped_column(default="")
    nature: Mapped[Word] = mapped_column(default="data")
    labels: Mapped[list[str]]
    labelled_by: Mapped[list[str]] = mapped_column(default=list, server_default=text("'[]'::jsonb"))
    owner_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    retention_until: Mapped[Moment | None]
    status: Mapped[Word] = mapped_column(default="active")
    created_at: Mapped[CreatedAt]


class Slice(Base):
    """A named part of a dataset and where it lives. `binding` is validated by the kind that serves it.

    `bound_by`: the person who proposed the binding; they get no credentials for it.
    """

    __tablename__ = "slice"
    __table_args__ = (
        UniqueConstraint("dataset_id", "name"),
        CheckConstraint(one_of("state", *SLICE_STATES), name="state"),
        Index("ix_slice_registering", "state", postgresql_where=text("state = 'registering'")),
        Index("ix_slice_connection", "kind", text("(binding ->> 'connection')")),
        Index("ix_slice_claimed", "claimed_until", postgresql_where=text("claimed_until IS NOT NULL")),
    )

    id: Mapped[Key]
    dataset_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.dataset.id"))
    name: Mapped[Word]
    description: Mapped[Prose] = mapped_column(default="")
    kind: Mapped[Word]
    binding: Mapped[dict[str, Any]]
    bound_by: Mapped[Id | None]
    actions: Mapped[list[str]]
    state: Mapped[Word] = mapped_column(default="registering")
    state_detail: Mapped[Prose] = mapped_column(default="")
    # What lay behind it when it was registered, as its kind identifies that; None of kinds that cannot.
    seen: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    rows_estimate: Mapped[int | None] = mapped_column(BigInteger)
    claimed_until: Mapped[Moment | None]
    created_at: Mapped[CreatedAt]


class Offer(Base):
    """A dataset shown to a vendor. What is not offered does not exist for its people."""

    __tablename__ = "offer"
    __table_args__ = (
        Index("uq_offer_live", "dataset_id", "vendor_id", unique=True, postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[Key]
    dataset_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.dataset.id"))
    vendor_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.vendor.id"), index=True)
    made_by: Mapped[Id | None]
    made_at: Mapped[CreatedAt]
    ended_at: Mapped[Moment | None]
