"""The story of a credential, in numbered steps (docs/issuance.md walks through them).

No transaction is held across a network call. A crash between any two steps leaves a `pending` lease, which the
worker ends, or a credential that dies by itself within its kind's declared exposure.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import sleep
from typing import Any

import structlog
from sqlalchemy import func, update

from broker.base import metrics
from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown, Conflict, Denied, FactorNeeded, Invalid, NotFound
from broker.base.ids import new_lease_id
from broker.gate.facts import Ask, Gathered, gather
from broker.identity.caller import Caller
from broker.keystore.vault import ChildToken
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.kinds.values import Issued, LeaseToIssue
from broker.leases import limits
from broker.log import audit
from broker.models import Lease
from broker.policies import Decision, decide
from broker.revocation import closing, ending
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
DEFAULT_LIFETIME = 900
# From its beginning, a lease can be renewed this long, in seconds; then a new credential is taken.
RENEWABLE_FOR = 12 * 3600
_LENGTHENING_PAUSES = (0.0, 0.5, 3.0)


@dataclass(frozen=True, slots=True)
class Handed:
    """What the caller gets: the lease, and the credential's values if this very call made them."""

    lease: Lease
    values: Mapping[str, str] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Plan:
    lease: Lease
    kind: Kind
    to_issue: LeaseToIssue


def issue(parts: Parts, caller: Caller, ask: Ask, *, idempotency_key: str | None = None) -> Handed:
    """Issue one credential, or say every reason why not.

    Raises:
        Denied: the gate said no; the decision is recorded.
        FactorNeeded: only a fresh second factor is missing.
        NotFound: there is no such dataset for this caller.
        Conflict: too many leases, live or ended early; the same key was used for something else; or it was revoked
            meanwhile.
        BackendDown: PostgreSQL or OpenBao did not answer in time; nothing usable was left behind.
    """
    if ask.kind is not None:
        _kind(ask.kind)
    key_hash = limits.key_hash_of(caller, idempotency_key) if idempotency_key else None
    closing.check_witness_once(parts)
    # Steps 1 to 4: facts, decision, its event and the pending lease, in one transaction.
    with parts.database.transaction() as tx:
        gathered = gather(tx, caller, ask)
        # After gathering, which locked the holder's row: a repeat that comes meanwhile waits for the first.
        if key_hash and (repeated := limits.repeated(tx, key_hash, ask, gathered)):
            return Handed(repeated, None)
        outcome = _decide_and_record(parts, tx, caller, ask, gathered, key_hash)
        # Step 5 begins while the record is being committed: a child token is written nowhere, and opens nothing that
        # exists yet. If the commit fails, it is dropped.
        token = _begin_child_token(parts, outcome)
    if not isinstance(outcome, _Plan):
        metrics.decisions.labels("denied", ask.kind or "any").inc()
        raise outcome
    metrics.decisions.labels("allowed", outcome.kind.name).inc()
    if not outcome.kind.at_backend:
        return _hand_over_signed(parts, outcome)
    with metrics.issue_seconds.labels(outcome.kind.name).time():
        return _issue_at_backend(parts, outcome, token)


def _decide_and_record(
    parts: Parts, tx: Transaction, caller: Caller, ask: Ask, gathered: Gathered, key_hash: bytes | None
) -> _Plan | Exception:
    decision = decide(gathered.facts, parts.rulebook.at(tx, gathered.revision), gathered.now)
    decision_id = record_decision(tx, caller, ask, gathered, decision)
    if not decision.allowed:
        return refusal(decision, decision_id)
    if gathered.dataset is None or decision.grant is None or decision.bounds is None or decision.bounds.slice is None:
        raise RuntimeError("the gate allowed something without dataset, grant or bounds")
    slice_ = gathered.slices[decision.bounds.slice]
    kind = _kind(ask.kind or slice_["kind"])
    try:
        public_key = _served(kind, slice_, ask)
    except Invalid as error:
        return error
    most = parts.settings.max_live_leases
    if refused := limits.reached(tx, decision.grant, caller, kind, most, gathered.now):
        return refused
    lease = _pending(parts, tx, caller, kind, ask, gathered, decision, decision_id)
    lease.holder_hash, lease.key_hash = key_hash, limits.digest(public_key)
    tx.add(lease)
    tx.flush()
    if not kind.at_backend:
        # Nothing at a backend can fail half-way, so the record and its event are written in one go.
        lease.state, lease.activated_at = "active", gathered.now
        _record_issued(tx, lease, gathered.now)
    to_issue = _to_issue(parts, lease, caller, gathered)
    return _Plan(lease, kind, replace(to_issue, public_key=public_key, networks=decision.bounds.networks))


def _served(kind: Kind, slice_: Mapping[str, Any], ask: Ask) -> str:
    """The public key to issue for, "" for kinds without one.

    Raises:
        Invalid: the slice is not served so, or what the guest brought will not do.
    """
    if slice_["kind"] != kind.name and kind.at_backend:
        raise Invalid(f"The slice {slice_['name']!r} has no credentials of kind {kind.name}.", field="/kind")
    if ask.action not in kind.actions:
        raise Invalid(f"The kind {kind.name} cannot serve {ask.action!r}.", field="/action")
    if kind.proof is None:
        if ask.public_key:
            raise Invalid(f"A credential of kind {kind.name} does not use a public key.", field="/public_key")
        return ""
    if not ask.public_key:
        raise Invalid(
            f"A credential of kind {kind.name} needs your own {kind.proof.label}.",
            field="/public_key",
            advice=f"Make one: {kind.proof.how}",
        )
    return kind.check_proof(ask.public_key)


def _begin_child_token(parts: Parts, outcome: _Plan | Exception) -> Future[ChildToken] | None:
    """Ask for a child token of exactly one path, on another thread."""
    if not isinstance(outcome, _Plan) or not outcome.kind.needs_child_token:
        return None
    lease, to_issue = outcome.lease, outcome.to_issue
    policies = outcome.kind.policies(to_issue.slice_id, to_issue.action)
    # What was made with the token ends with it at the latest, so it outlives every renewal. Nobody keeps it.
    ttl = (max(to_issue.lifetime, RENEWABLE_FOR) if outcome.kind.renewable else to_issue.lifetime) + 60
    return parts.background.submit(parts.vault.child_token, lease.handle, lease.id, policies, ttl=ttl)


def _issue_at_backend(parts: Parts, plan: _Plan, token: Future[ChildToken] | None) -> Handed:
    lease, vault = plan.lease, parts.vault
    # A fault in steps 5 and 6 leaves the lease pending; once its deadline has passed the worker ends it.
    with vault.deadline(parts.settings.issue_deadline):
        # Step 6: the credential, for a minute only until it is activated.
        own = _wait_for_token(token, parts.settings.bao_timeout) if token is not None else None
        issued = plan.kind.issue(vault, own, plan.to_issue)
    # Step 7: active, unless somebody ended it meanwhile. The minute is lengthened while the caller reads the answer.
    _activate(parts, lease, issued)
    parts.background.submit(_lengthen, parts, plan, issued)
    # Step 8: handed over once; kept nowhere.
    return Handed(lease, issued.values)


def _wait_for_token(token: Future[ChildToken], seconds: float) -> ChildToken:
    try:
        return token.result(seconds)
    except TimeoutError as error:
        # Others wait at the key store too: this one's turn has not even come.
        token.cancel()
        raise BackendDown(
            "The key store is not responding, so no credential can be issued.",
            backend="openbao",
            advice="Try again in a minute.",
        ) from error


def _hand_over_signed(parts: Parts, plan: _Plan) -> Handed:
    try:
        issued = plan.kind.issue(parts.vault, None, plan.to_issue)
    except BackendDown:
        _abandon(parts, plan.lease)
        raise
    return Handed(plan.lease, issued.values)


def _lengthen(parts: Parts, plan: _Plan, issued: Issued) -> None:
    """Lengthen the backend's minute to the lease's lifetime. If that cannot be, the lease ends early, and says so."""
    for pause in _LENGTHENING_PAUSES:
        sleep(pause)
        try:
            plan.kind.activate(parts.vault, plan.to_issue, issued)
        except BackendDown:
            continue
        return
    log.error("lease.not_lengthened", lease=plan.lease.id)
    _abandon(parts, plan.lease)


def _activate(parts: Parts, lease: Lease, issued: Issued) -> None:
    with parts.database.transaction() as tx:
        moment = func.clock_timestamp()
        active = tx.execute(
            update(Lease)
            .where(Lease.id == lease.id, Lease.state == "pending", Lease.deadline >= moment)
            .values(state="active", activated_at=moment, backend_lease_id=issued.backend_lease_id)
            .returning(Lease.activated_at)
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
        if active is not None:
            lease.state, lease.activated_at, lease.backend_lease_id = "active", active, issued.backend_lease_id
            _record_issued(tx, lease, active)
            return
        now = clock(tx)
        # Ended while the backend was at work: the worker needs the backend's name for what now must go.
        tx.execute(update(Lease).where(Lease.id == lease.id).values(backend_lease_id=issued.backend_lease_id))
        ending.mark(tx, Lease.id == lease.id, cause="abandoned", by=audit.SYSTEM, now=now)
    raise Conflict(
        "Access ended while the credential was being issued. It was revoked, and no one received it.",
        advice="`guestkey why` shows what is missing now.",
        code="ended_meanwhile",
    )


def _abandon(parts: Parts, lease: Lease) -> None:
    """Mark an active lease that must not go on. If even that fails, it dies at its backend within a minute."""
    try:
        with parts.database.transaction() as tx:
            ending.mark(tx, Lease.id == lease.id, cause="abandoned", by=audit.SYSTEM, now=clock(tx))
    except BackendDown:
        log.warning("lease.abandoned_unmarked", lease=lease.id)


def record_decision(tx: Transaction, caller: Caller, ask: Ask, gathered: Gathered, decision: Decision) -> str:
    """Insert the decision as an event, all reasons included; returns its id."""
    return audit.record(
        tx,
        "decision.allowed" if decision.allowed else "decision.denied",
        actor=caller.subject,
        # What a stranger typed never becomes a subject: only datasets that exist can be looked up.
        subject=gathered.dataset["id"] if gathered.dataset else "dataset:unknown",
        now=gathered.now,
        details={
            "action": ask.action,
            "kind": ask.kind,
            "slice": decision.bounds.slice if decision.bounds else ask.slice,
            "reasons": [reason.code for reason in decision.reasons],
            "rules": list(decision.rules),
            "revision": decision.revision,
            "grant": decision.grant,
            "holder": caller.holder_id,
        },
        personal={"address": caller.address or "", "dataset_asked": "" if gathered.dataset else ask.dataset},
    )


def refusal(decision: Decision, decision_id: str) -> Exception:
    """The error a refused decision becomes: not found, second factor needed, or denied with every reason."""
    if not decision.visible:
        return NotFound(
            "There is no such dataset, or it is not offered to you.",
            advice="`guestkey dataset list` shows the datasets you can see.",
        )
    if decision.factor_needed is not None:
        return FactorNeeded(
            "This needs a fresh second factor.",
            max_age=decision.factor_needed,
            enrolled=all(reason.code != "factor_not_enrolled" for reason in decision.reasons),
            advice="Run `guestkey confirm`, or confirm in the portal, then try again.",
        )
    return Denied(decision, decision_id=decision_id)


def _record_issued(tx: Transaction, lease: Lease, now: datetime) -> None:
    audit.record(
        tx,
        "lease.issued",
        actor=lease.holder,
        subject=lease.id,
        now=now,
        details={
            "kind": lease.kind,
            "dataset": lease.dataset_id,
            "slice": lease.slice_id,
            "action": lease.action,
            "grant": lease.grant_id,
            "decision": lease.decision_id,
            "handle": lease.handle,
            "expires_at": lease.expires_at.isoformat(),
            **({"public_key_sha256": lease.key_hash.hex()} if lease.key_hash else {}),
        },
    )


def _pending(
    parts: Parts,
    tx: Transaction,
    caller: Caller,
    kind: Kind,
    ask: Ask,
    gathered: Gathered,
    decision: Decision,
    decision_id: str,
) -> Lease:
    bounds = decision.bounds
    assert bounds is not None and gathered.dataset is not None  # checked by the caller; narrows the types
    lifetime = ask.lifetime or min(DEFAULT_LIFETIME, bounds.max_lifetime or DEFAULT_LIFETIME)
    expires_at = gathered.now + timedelta(seconds=min(lifetime, bounds.max_lifetime or lifetime))
    if bounds.not_after is not None:
        expires_at = min(expires_at, bounds.not_after)
    lease_id = new_lease_id()
    return Lease(
        id=lease_id,
        kind=kind.name,
        grant_id=decision.grant,
        person_id=caller.id if caller.kind == "person" else None,
        service_id=caller.id if caller.kind == "service" else None,
        dataset_id=gathered.dataset["id"],
        slice_id=gathered.slices[bounds.slice or ""]["id"],
        action=ask.action,
        handle=f"{parts.tag_in(tx)}-{lease_id}",
        policy_revision=gathered.revision,
        rule="\n".join(decision.rules),
        decision_id=decision_id,
        factor_at=caller.factor_at,
        address=caller.address or "",
        created_at=gathered.now,
        deadline=gathered.now + timedelta(seconds=3 * parts.settings.issue_deadline),
        expires_at=expires_at,
    )


def _to_issue(parts: Parts, lease: Lease, caller: Caller, gathered: Gathered) -> LeaseToIssue:
    slice_ = next(row for row in gathered.slices.values() if row["id"] == lease.slice_id)
    return LeaseToIssue(
        id=lease.id,
        handle=lease.handle,
        subject=caller.subject,
        dataset=gathered.dataset["slug"] if gathered.dataset else "",
        slice=slice_["name"],
        slice_id=lease.slice_id,
        binding=slice_["binding"],
        action=lease.action,
        issued_at=lease.created_at,
        expires_at=lease.expires_at,
        place=parts.settings.place(lease.kind, slice_["binding"]),
        issuer=str(parts.settings.public_url).rstrip("/"),
    )


def _kind(name: str) -> Kind:
    if name not in kinds:
        advice = f"Use one of: {', '.join(sorted(kinds))}."
        raise Invalid(f"There is no kind of credential called {name!r}.", field="/kind", advice=advice)
    return kinds[name]
