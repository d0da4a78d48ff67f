"""People, the organisation-wide and vendor-wide roles they hold, and teams of them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, Id, Key, Moment, Prose, Word, begins, one_of

PERSON_STATUSES = ("pending", "active", "suspended", "refused")
ORG_ROLES = ("admin", "auditor", "lead")


class Person(Base):
    """A human of the organisation (`vendor_id` null) or of a vendor; identity is (issuer, subject).

    `refused`: joined through a link, and was not who it was meant for.
    """

    __tablename__ = "person"
    __table_args__ = (
        UniqueConstraint("issuer", "subject"),
        CheckConstraint(one_of("status", *PERSON_STATUSES), name="status"),
        begins("person", "name"),
        begins("person", "email"),
    )

    id: Mapped[Key]
    issuer: Mapped[Prose]
    subject: Mapped[str] = mapped_column(String(255))
    source_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.sign_in_source.id"))
    vendor_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.vendor.id"), index=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    email: Mapped[str] = mapped_column(String(320), default="")
    status: Mapped[Word] = mapped_column(default="pending")
    invited_by: Mapped[Id | None]
    failed_codes: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[Moment | None]
    created_at: Mapped[CreatedAt]


class RoleHeld(Base):
    """An organisation-wide role (`admin`, `auditor`) or a vendor-wide one (`lead`) of a person."""

    __tablename__ = "role_held"
    __table_args__ = (
        CheckConstraint(one_of("role", *ORG_ROLES), name="role"),
        Index("uq_role_held_live", "person_id", "role", unique=True, postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[Key]
    person_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.person.id"))
    role: Mapped[Word]
    given_by: Mapped[Id | None]
    given_at: Mapped[CreatedAt]
    until: Mapped[Moment | None]
    ended_at: Mapped[Moment | None]


class Team(Base):
    """A set of people of one vendor that a grant can name."""

    __tablename__ = "team"
    __table_args__ = (UniqueConstraint("vendor_id", "name"), begins("team", "name"))

    id: Mapped[Key]
    vendor_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.vendor.id"))
    name: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[CreatedAt]


class TeamMember(Base):
    """One person in one team."""

    __tablename__ = "team_member"

    team_id: Mapped[str] = mapped_column(String(40), ForeignKey("guestkey.team.id"), primary_key=True)
    person_id: Mapped[str] = mapped_column(String(40), ForeignKey("guestkey.person.id"), primary_key=True, index=True)
    added_at: Mapped[CreatedAt]
