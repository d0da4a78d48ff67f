"""Deciding live leases again: a right that is gone must not live on in a credential.

Runs after any change of rules or facts, and at intervals for what changes with time alone. The age of the second
factor counts as it was when the lease was issued; everything else counts as it is now.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select, update

from broker.base.database import Transaction
from broker.gate.facts import Ask, gather
from broker.identity.caller import Caller
from broker.log import audit
from broker.models import Lease, Slice
from broker.policies import Decision, decide
from broker.revocation import ending
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
BATCH = 200


def redecide_all(parts: Parts) -> int:
    """Decide every active lease again, in batches. Returns how many no longer qualify and are ending now."""
    ended, after = 0, ""
    while True:
        with parts.database.transaction() as tx:
            ids = list(
                tx.scalars(
                    select(Lease.id).where(Lease.state == "active", Lease.id > after).order_by(Lease.id).limit(BATCH)
                )
            )
        for lease_id in ids:
            ended += _redecide(parts, lease_id)
        if len(ids) < BATCH:
            return ended
        after = ids[-1]


def _redecide(parts: Parts, lease_id: str) -> int:
    with parts.database.transaction() as tx:
        lease = tx.scalars(select(Lease).where(Lease.id == lease_id, Lease.state == "active")).one_or_none()
        if lease is None:
            return 0
        decision, now = _decide_again(parts, tx, lease)
        if not decision.allowed or decision.bounds is None:
            codes = [reason.code for reason in decision.reasons]
            audit.record(
                tx,
                "lease.disqualified",
                actor=audit.SYSTEM,
                subject=lease.id,
                now=now,
                details={"reasons": codes, "revision": decision.revision},
            )
            ending.mark(tx, Lease.id == lease.id, cause="disqualified", by=audit.SYSTEM, now=now)
            return 1
        since = lease.renewed_at or lease.created_at
        latest = min(decision.bounds.not_after, since + timedelta(seconds=decision.bounds.max_lifetime))
        if latest < lease.expires_at:
            tx.execute(update(Lease).where(Lease.id == lease.id).values(expires_at=latest))
            audit.record(
                tx,
                "lease.shortened",
                actor=audit.SYSTEM,
                subject=lease.id,
                now=now,
                details={"expires_at": latest.isoformat(), "revision": decision.revision},
            )
        return 0


def _decide_again(parts: Parts, tx: Transaction, lease: Lease) -> tuple[Decision, datetime]:
    slice_name = tx.execute(select(Slice.name).where(Slice.id == lease.slice_id)).scalar_one()
    caller = Caller(
        kind="person" if lease.person_id else "service",
        id=lease.person_id or lease.service_id or "",
        name="",
        vendor_id=None,
        holder_id=lease.id,
        how="api_token",
        signed_in_at=lease.created_at,
        factor_at=lease.factor_at,
        factor_enrolled=lease.factor_at is not None,
        address=lease.address or None,
    )
    gathered = gather(tx, caller, Ask(lease.dataset_id, lease.action, slice_name, lease.kind))
    facts, age = gathered.facts, gathered.now - (lease.renewed_at or lease.created_at)
    if facts.caller is not None and lease.factor_at is not None:
        facts = replace(facts, caller=replace(facts.caller, factor_at=lease.factor_at + age))
    # A lease rests on its own grant: another one that would allow the same is for the next issuance.
    facts = replace(facts, grants=tuple(grant for grant in facts.grants if grant.id == lease.grant_id))
    return decide(facts, parts.rulebook.at(tx, gathered.revision), gathered.now), gathered.now
