"""From asking to holding: requests, and the grants that come of them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, HolderColumns, Id, Key, Moment, Prose, Word, one_of

REQUEST_STATES = ("pending", "approved", "refused", "withdrawn", "lapsed")


class Request(HolderColumns, Base):
    """Someone asks for a role on a dataset, for a purpose and a time. `period` is in seconds from the approval.

    `until` ends it sooner, however late the approval comes.

    `person_id` asks: for a team, a service, or one of the own staff (`for_person_id`), else for themselves.
    """

    __tablename__ = "request"
    __table_args__ = (
        CheckConstraint(one_of("state", *REQUEST_STATES), name="state"),
        CheckConstraint("period > 0", name="period"),
        CheckConstraint("num_nonnulls(team_id, service_id) <= 1", name="holder"),
        CheckConstraint("num_nonnulls(for_person_id, team_id, service_id) <= 1", name="for_person"),
        Index("ix_request_pending", "dataset_id", "created_at", postgresql_where=text("state = 'pending'")),
        Index("ix_request_person_id_created_at", "person_id", "created_at"),
        Index("ix_request_for_person_id", "for_person_id", postgresql_where=text("for_person_id IS NOT NULL")),
    )

    id: Mapped[Key]
    person_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.person.id"))
    for_person_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    team_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.team.id"))
    service_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.service.id"))
    dataset_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.dataset.id"))
    role: Mapped[Word]
    slice_name: Mapped[Word | None]
    purpose: Mapped[Prose]
    period: Mapped[int]
    until: Mapped[Moment | None]
    state: Mapped[Word] = mapped_column(default="pending")
    created_at: Mapped[CreatedAt]
    lapses_at: Mapped[Moment]
    reminded_at: Mapped[Moment | None]
    decided_at: Mapped[Moment | None]
    decided_by: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    decision_reason: Mapped[Prose] = mapped_column(default="")

    @property
    def for_id(self) -> str:
        """The id of the person it is for: one of a lead's staff, or else who asks."""
        return self.for_person_id or self.person_id

    @property
    def holder(self) -> str:
        """Who would hold the grant, prefixed."""
        return super().holder if self.team_id or self.service_id else f"person:{self.for_id}"


class Grant(HolderColumns, Base):
    """An approved role on a dataset for a person, team or service, from-until; a right, not a secret."""

    __tablename__ = "grant"
    __table_args__ = (
        CheckConstraint("num_nonnulls(person_id, team_id, service_id) = 1", name="holder"),
        CheckConstraint("starts_at < ends_at", name="period"),
        Index("ix_grant_person", "person_id", "dataset_id", postgresql_where=text("revoked_at IS NULL")),
        Index("ix_grant_team", "team_id", "dataset_id", postgresql_where=text("revoked_at IS NULL")),
        Index("ix_grant_service", "service_id", "dataset_id", postgresql_where=text("revoked_at IS NULL")),
        Index("ix_grant_dataset", "dataset_id", postgresql_where=text("revoked_at IS NULL")),
        Index("ix_grant_ends_at", "ends_at", postgresql_where=text("revoked_at IS NULL")),
    )

    id: Mapped[Key]
    dataset_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.dataset.id"))
    role: Mapped[Word]
    person_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    team_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.team.id"))
    service_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.service.id"))
    slice_name: Mapped[Word | None]
    max_lifetime: Mapped[int | None]
    purpose: Mapped[Prose]
    starts_at: Mapped[Moment]
    ends_at: Mapped[Moment]
    request_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.request.id"), unique=True)
    approved_by: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[Moment | None]
    revoked_by: Mapped[Id | None]
    revoke_reason: Mapped[Prose] = mapped_column(default="")
    confirmed_at: Mapped[Moment | None]
    confirmed_by: Mapped[Id | None]
