"""Leases: the record of each credential. Never the secret."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, CreatedAt, HolderColumns, Id, Key, Moment, Prose, Word, one_of

LEASE_STATES = ("pending", "active", "revoking", "revoked", "expired", "revoke_failed")
LIVE_STATES = ("pending", "active", "revoking", "revoke_failed")
_LIVE = one_of("state", *LIVE_STATES)


class Lease(HolderColumns, Base):
    """One credential: `pending` before its secret exists, `active` when handed over, then on to its end.

    `attempts` and `next_attempt_at` belong to ending; `claimed_until` is the deadline of the worker at it.
    `exposed_until`: its backend said it cannot be ended sooner. `key_hash`: SHA-256 of the public key it is made for.
    """

    __tablename__ = "lease"
    __table_args__ = (
        CheckConstraint(one_of("state", *LEASE_STATES), name="state"),
        CheckConstraint("num_nonnulls(person_id, service_id) = 1", name="holder"),
        Index("ix_lease_live_grant", "grant_id", postgresql_where=text(_LIVE)),
        Index("ix_lease_live_person", "person_id", postgresql_where=text(_LIVE)),
        Index("ix_lease_live_service", "service_id", postgresql_where=text(_LIVE)),
        Index("ix_lease_live_dataset", "dataset_id", postgresql_where=text(_LIVE)),
        Index("ix_lease_live_expiry", "expires_at", postgresql_where=text(_LIVE)),
        Index(
            "ix_lease_ending",
            "next_attempt_at",
            postgresql_where=text("state IN ('revoking', 'revoke_failed')"),
        ),
        Index("ix_lease_person_id_created_at", "person_id", "created_at"),
        Index("ix_lease_service_id_created_at", "service_id", "created_at"),
        # Lists of revoked leases are made of certificates that have not run out.
        Index("ix_lease_ssh_expiry", "expires_at", postgresql_where=text("kind = 'ssh'")),
        Index("ix_lease_suspension", "suspension_id", "id", postgresql_where=text("suspension_id IS NOT NULL")),
        Index("uq_lease_idempotency", "holder_hash", unique=True, postgresql_where=text("holder_hash IS NOT NULL")),
    )

    id: Mapped[Key]
    kind: Mapped[Word]
    grant_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.grant.id"))
    person_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.person.id"))
    service_id: Mapped[Id | None] = mapped_column(ForeignKey("guestkey.service.id"))
    dataset_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.dataset.id"))
    slice_id: Mapped[Id] = mapped_column(ForeignKey("guestkey.slice.id"))
    action: Mapped[Word]
    state: Mapped[Word] = mapped_column(default="pending")
    handle: Mapped[str] = mapped_column(String(200), default="")
    backend_lease_id: Mapped[str | None] = mapped_column(String(400))
    policy_revision: Mapped[int]
    rule: Mapped[Prose] = mapped_column(default="")
    decision_id: Mapped[Id]
    factor_at: Mapped[Moment | None]
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[CreatedAt]
    deadline: Mapped[Moment]
    activated_at: Mapped[Moment | None]
    expires_at: Mapped[Moment]
    renewed_at: Mapped[Moment | None]
    end_cause: Mapped[Word | None]
    end_by: Mapped[str | None] = mapped_column(String(80))
    suspension_id: Mapped[Id | None]
    ending_since: Mapped[Moment | None]
    ended_at: Mapped[Moment | None]
    confirmed_by: Mapped[Prose] = mapped_column(default="")
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[Moment | None]
    claimed_until: Mapped[Moment | None]
    last_error: Mapped[Prose] = mapped_column(default="")
    holder_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    key_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    exposed_until: Mapped[Moment | None]
