"""The audit log: `record` inserts one event inside the caller's transaction, or the thing does not happen.

With an event that people are told of goes the record that they are to be (`broker.notices` does it).

A leaf is canonical JSON (RFC 8785). Names, addresses and other personal data enter it only as salted
commitments; their clear text lies in `event_personal`, which can be erased without breaking the log.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import rfc8785
from sqlalchemy import insert

from broker.database import Transaction
from broker.models import Event, EventPersonal, Notice, is_id, new_id

LEAF_VERSION = 1
SYSTEM = "system"
# What people are told of. `broker.notices.causes` says whom, and in which words.
NOTICED = frozenset(
    {
        "grant.made",
        "grant.revoked",
        "installation.closed",
        "installation.opened",
        "lease.revoke_failed",
        "person.confirmed",
        "person.joined",
        "person.suspended",
        "proposal.approved",
        "proposal.lapsed",
        "proposal.made",
        "proposal.refused",
        "recovery.begun",
        "recovery.used",
        "request.approved",
        "request.lapsed",
        "request.made",
        "request.refused",
        "request.reminded",
        "request.withdrawn",
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
    leaf: Any = {
        "v": LEAF_VERSION,
        "id": event_id,
        "kind": kind,
        "at": now.isoformat(timespec="microseconds"),
        "actor": actor,
        "subject": subject,
        "details": dict(details or {}),
        "personal": {row["field"]: row["commitment"] for row in commitments},
    }
    row = {
        "id": event_id,
        "kind": kind,
        "actor": actor,
        "subject": subject,
        "leaf": rfc8785.dumps(leaf),
        "about": sorted({found for named in (actor, subject, *leaf["details"].values()) for found in _ids(named)}),
    }
    entry = insert(Event).inline().values(row)
    if commitments:
        # One statement for both: the gate records a decision on every request.
        entry = insert(EventPersonal).inline().values(commitments).add_cte(entry.cte("entry"))
    tx.execute(entry)
    if kind in NOTICED:
        tx.execute(insert(Notice).values(id=new_id("no"), kind=kind, actor=actor, subject=subject, next_attempt_at=now))
    return event_id


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
    salt = secrets.token_bytes(32)
    value = value[:2000]
    return {
        "commitment": commitment_of(salt, value),
        "event_id": event_id,
        "field": field,
        "salt": salt,
        "value": value,
    }
