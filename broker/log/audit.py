"""The audit log: `record` inserts events inside the caller's transaction, or the thing does not happen.

With an event that people are told of goes the record that they are to be (`broker.notices` does it).

A leaf is canonical JSON (RFC 8785). Names, addresses and other personal data enter it only as salted
commitments; their clear text lies in `event_personal`, which can be erased without breaking the log.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, String, cast, func, insert, select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import InstrumentedAttribute

from broker.base import canonical
from broker.base.database import Transaction
from broker.base.ids import is_id, new_id
from broker.models import (
    ApiToken,
    Event,
    EventPersonal,
    Grant,
    Invitation,
    Lease,
    Notice,
    Offer,
    Request,
    Session,
    Slice,
)

LEAF_VERSION = 1
SYSTEM = "system"
_IDS = ARRAY(String(40))
# An event that happened to a record is also about whom and what the record names: the end of Ada's lease is about Ada.
_NAMED_BY: Mapping[str, tuple[InstrumentedAttribute[str], tuple[InstrumentedAttribute[Any], ...]]] = {
    "lease": (Lease.id, (Lease.person_id, Lease.service_id, Lease.dataset_id, Lease.slice_id, Lease.grant_id)),
    "gr": (Grant.id, (Grant.person_id, Grant.team_id, Grant.service_id, Grant.dataset_id, Grant.request_id)),
    "rq": (
        Request.id,
        (Request.person_id, Request.for_person_id, Request.team_id, Request.service_id, Request.dataset_id),
    ),
    "sl": (Slice.id, (Slice.dataset_id,)),
    "of": (Offer.id, (Offer.dataset_id, Offer.vendor_id)),
    "in": (Invitation.id, (Invitation.person_id, Invitation.vendor_id)),
    "se": (Session.id, (Session.person_id,)),
    "at": (ApiToken.id, (ApiToken.person_id, ApiToken.service_id)),
}
# What people are told of. `broker.notices.triggers` says whom, and in which words.
NOTICED = frozenset(
    {
        *("dataset.changed", "dataset.resumed"),
        *("factor.enrolled", "factor.removed", "factor.replaced", "factor.reset"),
        *("grant.made", "grant.revoked"),
        *("installation.closed", "installation.opened"),
        *("lease.revoke_failed", "lease.stray_ended", "lease.vanished"),
        "offer.made",
        *("person.confirmed", "person.joined", "person.suspended"),
        "place.silent",
        *("proposal.approved", "proposal.lapsed", "proposal.made", "proposal.refused"),
        *("recovery.begun", "recovery.used"),
        "recovery_code.used",
        "recovery_codes.replaced",
        *(
            "request.approved",
            "request.lapsed",
            "request.made",
            "request.refused",
            "request.reminded",
            "request.withdrawn",
        ),
        "service.secret_rotated",
        *("slice.added", "slice.changed"),
        "team.member_added",
    }
)


def record(
    tx: Transaction,
    kind: str,
    *,
    actor: str,
    subject: str,
    now: datetime,
    details: Mapping[str, Any] | None = None,
    personal: Mapping[str, str] | None = None,
) -> str:
    """Insert one event and return its id.

    Args:
        kind: what happened, `noun.participle`: `lease.issued`, `grant.revoked`.
        actor: who did it: `person:<id>`, `service:<id>` or `system`.
        subject: the id of the record it happened to.
        now: PostgreSQL's clock, as the decision saw it.
        details: JSON values that may stay for ever: ids, codes, numbers, times. Never a secret.
        personal: clear text (names, e-mail and network addresses, purposes) that may have to be erased.
    """
    event_id = new_id("ev")
    commitments = [_commit(event_id, field, value) for field, value in (personal or {}).items() if value]
    row = _row(event_id, kind, actor, subject, now, details or {}, commitments)
    if (sort := _sort(subject)) is not None:
        # In the same statement: the gate's own events cost no second round trip.
        named = select(_named(sort)).where(_NAMED_BY[sort][0] == subject).scalar_subquery()
        row["about"] = func.array_cat(cast(row["about"], _IDS), func.coalesce(named, cast([], _IDS)))
    entry = insert(Event).inline().values(row)
    if commitments:
        # One statement for both: the gate records a decision on every request.
        entry = insert(EventPersonal).inline().values(commitments).add_cte(entry.cte("entry"))
    tx.execute(entry)
    if kind in NOTICED:
        tx.execute(insert(Notice).values(_notice(kind, actor, subject, now)))
    return event_id


def record_many(
    tx: Transaction, kind: str, *, actor: str, now: datetime, about: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """Insert one event for each subject, with its details, in one round trip: what happens to a thousand leases at
    once is as much on record as what happens to one.

    Args:
        about: subjects and what `record` calls details.
    """
    if not about:
        return
    rows = [_row(new_id("ev"), kind, actor, subject, now, details, []) for subject, details in about]
    named = _named_by_records(tx, [subject for subject, _ in about])
    for row in rows:
        row["about"] = sorted({*row["about"], *named.get(row["subject"], ())})
    tx.execute(insert(Event).inline(), rows)
    if kind in NOTICED:
        tx.execute(insert(Notice).inline(), [_notice(kind, actor, subject, now) for subject, _ in about])


def _row(
    event_id: str,
    kind: str,
    actor: str,
    subject: str,
    now: datetime,
    details: Mapping[str, Any],
    commitments: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    leaf: Any = {
        "v": LEAF_VERSION,
        "id": event_id,
        "kind": kind,
        "at": now.isoformat(timespec="microseconds"),
        "actor": actor,
        "subject": subject,
        "details": dict(details),
        "personal": {row["field"]: row["commitment"] for row in commitments},
    }
    return {
        "id": event_id,
        "kind": kind,
        "actor": actor,
        "subject": subject,
        "leaf": canonical.dumps(leaf),
        "about": sorted({found for named in (actor, subject, *leaf["details"].values()) for found in _ids(named)}),
    }


def _named_by_records(tx: Transaction, subjects: Sequence[str]) -> dict[str, list[str]]:
    """What the records of many subjects name, by subject."""
    sorts: dict[str, list[str]] = {}
    for subject in subjects:
        if (sort := _sort(subject)) is not None:
            sorts.setdefault(sort, []).append(subject)
    found: dict[str, list[str]] = {}
    for sort, wanted in sorts.items():
        id_, _ = _NAMED_BY[sort]
        found |= dict(tx.execute(select(id_, _named(sort)).where(id_.in_(wanted))).all())
    return found


def _named(sort: str) -> ColumnElement[list[str]]:
    _, columns = _NAMED_BY[sort]
    return func.array_remove(cast(array([*columns]), _IDS), None, type_=_IDS)


def _sort(subject: str) -> str | None:
    """Which records a subject's id is one of, if they name others."""
    sort = (subject.partition("_")[0] if "_" in subject else "lease") if is_id(subject) else ""
    return sort if sort in _NAMED_BY else None


def _notice(kind: str, actor: str, subject: str, now: datetime) -> dict[str, Any]:
    return {"id": new_id("no"), "kind": kind, "actor": actor, "subject": subject, "next_attempt_at": now}


def _ids(named: object) -> list[str]:
    """The ids in a value: itself, or behind `person:` or `service:`."""
    if isinstance(named, list):
        return [found for item in named for found in _ids(item)]
    bare = named.rpartition(":")[2] if isinstance(named, str) else ""
    return [bare] if is_id(bare) else []


def commitment_of(salt: bytes, value: str) -> str:
    """The hex SHA-256 commitment to a value, given its 32-byte salt."""
    return hashlib.sha256(salt + value.encode()).hexdigest()


def _commit(event_id: str, field: str, value: str) -> dict[str, Any]:
    salt, value = secrets.token_bytes(32), value[:2000]
    commitment = commitment_of(salt, value)
    return {"commitment": commitment, "event_id": event_id, "field": field, "salt": salt, "value": value}
