"""Deciding live leases again: to renew one, and so that no right that is gone lives on in a credential.

The gate decides anew, as of now, on the very grant the lease rests on. What no longer qualifies is not renewed and ends
when it would have ended, with an event. Nothing is handed over: the credential stays the same and lives longer. The
record is lengthened before its backend, so that it is never too short.

All are decided again after any change of rules or facts, and at intervals for what changes with time alone; there the
age of the second factor counts as it was when the lease was issued.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select, update

from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown, Conflict, Forbidden, Invalid
from broker.gate.facts import Ask, Gathered, gather
from broker.identity.caller import Caller
from broker.keystore.vault import VaultRefused
from broker.kinds.discovery import kinds
from broker.kinds.values import LeaseToEnd
from broker.leases import holdings, sweeping
from broker.leases.issuing import DEFAULT_LIFETIME, RENEWABLE_FOR, record_decision, refusal
from broker.log import audit
from broker.models import Lease, Slice
from broker.policies import Bounds, Decision, decide
from broker.revocation import ending
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
BATCH = 200


@dataclass(frozen=True, slots=True)
class _Renewed:
    """A lease whose record was lengthened, what it was before, and what its backend needs."""

    lease: Lease
    before: datetime
    seconds: int
    to_end: LeaseToEnd


def renew(parts: Parts, caller: Caller, lease_id: str, lifetime: int | None = None) -> Lease:
    """Lengthen a lease of one's own, from now on for a while.

    Args:
        lifetime: in seconds; None: as long as it was first given for, as far as the rule allows now.

    Raises:
        NotFound: there is none of that id that the caller may see.
        Forbidden: it is somebody else's.
        Invalid: its kind cannot be renewed.
        Conflict: it is ending or over, or was begun too long ago.
        Denied, FactorNeeded: it no longer qualifies; it ends when it would have.
        BackendDown: its backend did not lengthen it; it ends when it would have.
    """
    with parts.database.transaction() as tx:
        outcome = _decide(parts, tx, caller, lease_id, lifetime)
    if not isinstance(outcome, _Renewed):
        raise outcome
    try:
        kinds[outcome.lease.kind].renew(parts.vault, outcome.to_end, outcome.seconds)
    except (BackendDown, VaultRefused) as error:
        _restore_expiry(parts, outcome, caller)
        if isinstance(error, BackendDown):
            raise
        raise BackendDown(
            "The key store refused to extend the credential.", backend="openbao", advice="Get a new credential."
        ) from error
    return outcome.lease


def preview(parts: Parts, caller: Caller, lease_id: str) -> Decision:
    """What would be decided if the lease were renewed now; nothing is renewed or recorded.

    Raises:
        NotFound, Forbidden, Invalid, Conflict: as for `renew`.
    """
    with parts.database.transaction() as tx:
        lease = _own(tx, caller, lease_id)
        gathered = gather(tx, caller, _ask(tx, lease), locking=False)
        return _evaluate(parts, tx, lease, gathered)


def _ask(tx: Transaction, lease: Lease, lifetime: int | None = None) -> Ask:
    return Ask(lease.dataset_id, lease.action, tx.get_one(Slice, lease.slice_id).name, lease.kind, lifetime)


def _evaluate(parts: Parts, tx: Transaction, lease: Lease, gathered: Gathered) -> Decision:
    # A lease rests on its own grant: another one that would allow the same is for a new credential.
    grants = tuple(grant for grant in gathered.facts.grants if grant.id == lease.grant_id)
    return decide(replace(gathered.facts, grants=grants), parts.rulebook.at(tx, gathered.revision), gathered.now)


def _decide(parts: Parts, tx: Transaction, caller: Caller, lease_id: str, lifetime: int | None) -> _Renewed | Exception:
    lease = _own(tx, caller, lease_id)
    first = int((lease.expires_at - (lease.renewed_at or lease.created_at)).total_seconds())
    ask = _ask(tx, lease, lifetime)
    # Locks the holder and what the lease rests on, before the lease itself: the order of whoever ends them.
    gathered = gather(tx, caller, ask)
    tx.refresh(lease)
    decision = _evaluate(parts, tx, lease, gathered)
    decision_id = record_decision(tx, caller, ask, gathered, decision)
    if not decision.allowed or decision.bounds is None:
        codes = [reason.code for reason in decision.reasons]
        _note(tx, "lease.not_renewed", caller.subject, lease, gathered.now, reasons=codes, decision=decision_id)
        return refusal(decision, decision_id)
    until = _until(lease, decision.bounds, gathered.now, lifetime or min(first, DEFAULT_LIFETIME))
    if until <= lease.expires_at:
        why = ["not_longer"]
        _note(tx, "lease.not_renewed", caller.subject, lease, gathered.now, reasons=why, decision=decision_id)
        return Conflict(
            "The lease cannot be extended any further.",
            advice="Get a new credential when it has ended.",
            code="not_longer",
        )
    before = lease.expires_at
    changed = tx.execute(
        update(Lease)
        .where(Lease.id == lease.id, Lease.state == "active")
        .values(
            expires_at=until,
            renewed_at=gathered.now,
            factor_at=caller.factor_at,
            policy_revision=gathered.revision,
            rule="\n".join(decision.rules),
        )
        .returning(Lease.id)
    ).one_or_none()
    if changed is None:
        return _over()
    _note(tx, "lease.renewed", caller.subject, lease, gathered.now, until=until.isoformat(), decision=decision_id)
    tx.refresh(lease)
    to_end = sweeping.to_end(parts, lease, tx.get_one(Slice, lease.slice_id).binding, gathered.now)
    return _Renewed(lease, before, int((until - gathered.now).total_seconds()), to_end)


def _own(tx: Transaction, caller: Caller, lease_id: str) -> Lease:
    lease = holdings.lease(tx, caller, lease_id)
    if caller.id not in (lease.person_id, lease.service_id):
        raise Forbidden("Only its holder can renew a lease.")
    if not kinds[lease.kind].renewable:
        raise Invalid(
            f"A credential of kind {lease.kind} cannot be renewed: its expiry is fixed when it is issued.",
            field="/kind",
            advice="Get a new credential.",
            code="not_renewable",
        )
    if lease.state != "active" or lease.expires_at <= clock(tx):
        raise _over()
    return lease


def _until(lease: Lease, bounds: Bounds, now: datetime, lifetime: int) -> datetime:
    allowed = min(lifetime, bounds.max_lifetime or lifetime)
    ends = [now + timedelta(seconds=allowed), lease.created_at + timedelta(seconds=RENEWABLE_FOR)]
    return min([*ends, bounds.not_after] if bounds.not_after is not None else ends)


def _restore_expiry(parts: Parts, outcome: _Renewed, caller: Caller) -> None:
    """The backend did not follow: the record says again what is true there."""
    try:
        with parts.database.transaction_now() as (tx, now):
            tx.execute(
                update(Lease)
                .where(Lease.id == outcome.lease.id, Lease.expires_at == outcome.lease.expires_at)
                .values(expires_at=outcome.before)
            )
            _note(tx, "lease.not_renewed", caller.subject, outcome.lease, now, reasons=["backend_down"])
    except BackendDown:
        # The backend ends it at the old time all the same; the record's later end only makes the worker look later.
        log.warning("lease.renewal_not_taken_back", lease=outcome.lease.id)


def _note(tx: Transaction, kind: str, actor: str, lease: Lease, now: datetime, **details: object) -> None:
    audit.record(tx, kind, actor=actor, subject=lease.id, now=now, details=details)


def _over() -> Conflict:
    return Conflict("This lease is ending or has ended.", advice="Get a new credential.", code="lease_over")


def redecide_all(parts: Parts) -> int:
    """Decide every active lease again, in batches. Returns how many no longer qualify and are ending now."""
    ended, after = 0, ""
    while True:
        with parts.database.transaction() as tx:
            active = select(Lease.id).where(Lease.state == "active", Lease.id > after)
            ids = list(tx.scalars(active.order_by(Lease.id).limit(BATCH)))
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
            _note(tx, "lease.disqualified", audit.SYSTEM, lease, now, reasons=codes, revision=decision.revision)
            ending.mark(tx, Lease.id == lease.id, cause="disqualified", by=audit.SYSTEM, now=now)
            return 1
        since = lease.renewed_at or lease.created_at
        latest = min(decision.bounds.not_after, since + timedelta(seconds=decision.bounds.max_lifetime))
        if latest < lease.expires_at:
            tx.execute(update(Lease).where(Lease.id == lease.id).values(expires_at=latest))
            expires_at, revision = latest.isoformat(), decision.revision
            _note(tx, "lease.shortened", audit.SYSTEM, lease, now, expires_at=expires_at, revision=revision)
        return 0


def _decide_again(parts: Parts, tx: Transaction, lease: Lease) -> tuple[Decision, datetime]:
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
    gathered = gather(tx, caller, _ask(tx, lease))
    facts, age = gathered.facts, gathered.now - (lease.renewed_at or lease.created_at)
    if facts.caller is not None and lease.factor_at is not None:
        facts = replace(facts, caller=replace(facts.caller, factor_at=lease.factor_at + age))
    return _evaluate(parts, tx, lease, replace(gathered, facts=facts)), gathered.now
