"""Deciding about a request: who may, and approving (shorter or narrower than asked, never wider) or refusing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Invalid
from broker.base.ids import new_id
from broker.gate.explain import ProposedGrant, simulate
from broker.identity.caller import Caller
from broker.log import audit
from broker.models import Dataset, Grant, Request, Team
from broker.registry.approvers import why_not
from broker.requests.requests import (
    SHORTEST_PERIOD,
    conclude,
    party_of,
    refuse_if_pointless,
    request,
)
from broker.runtime.parts import Parts

SHORTEST_LIFETIME = 60


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What an approver takes away: a shorter period or longest lifetime (seconds), one slice. None: as asked."""

    period: int | None = None
    slice: str | None = None
    max_lifetime: int | None = None


def approve(
    parts: Parts, tx: Transaction, caller: Caller, request_id: str, narrowing: Narrowing, now: datetime
) -> Grant:
    """Turn a request into a grant that begins now.

    Raises:
        NotFound: there is no such request for this caller.
        Forbidden, Conflict: the caller may not decide, it is decided or lapsed, or a grant would open nothing now.
        Invalid: the approval would be wider than what was asked for.
    """
    found = _to_decide(tx, caller, request_id)
    period, slice_name = _narrowed(found, narrowing)
    if found.team_id:
        # Orders this grant against people being added by their lead (`broker.registry.teams`).
        tx.execute(select(Team.id).where(Team.id == found.team_id).with_for_update())
    prospect = ProposedGrant(found.holder, found.role, slice_name)
    party = party_of(tx, found.service_id, found.for_id, found.created_at)
    simulation = simulate(tx, parts.rulebook, party, found.dataset_id, prospect)
    refuse_if_pointless(simulation)
    _check_lifetime(narrowing, simulation.longest_lifetime)
    conclude(tx, caller, found, "approved", "", now)
    grant = Grant(
        dataset_id=found.dataset_id,
        role=found.role,
        person_id=None if found.team_id or found.service_id else found.for_id,
        team_id=found.team_id,
        service_id=found.service_id,
        slice_name=slice_name,
        max_lifetime=narrowing.max_lifetime,
        purpose=found.purpose,
        ends_at=min(filter(None, (now + timedelta(seconds=period), found.until))),
        request_id=found.id,
    )
    return begin_grant(tx, caller, grant, simulation.revision, now)


def begin_grant(tx: Transaction, caller: Caller, grant: Grant, revision: int | None, now: datetime) -> Grant:
    """Let a grant that was decided on begin now, never past the dataset's retention, with its event."""
    grant.id = new_id("gr")
    grant.starts_at = grant.created_at = now
    grant.approved_by = caller.id
    grant.ends_at = capped(tx, grant.dataset_id, grant.ends_at)
    tx.add(grant)
    tx.flush()
    details = {
        "request": grant.request_id,
        "dataset": grant.dataset_id,
        "role": grant.role,
        "slice": grant.slice_name,
        "holder": grant.holder,
        "ends_at": grant.ends_at.isoformat(),
        "max_lifetime": grant.max_lifetime,
        "revision": revision,
    }
    personal = {"purpose": grant.purpose}
    audit.record(tx, "grant.made", actor=caller.subject, subject=grant.id, now=now, details=details, personal=personal)
    return grant


def capped(tx: Transaction, dataset_id: str, until: datetime) -> datetime:
    """When a grant ends that is to end then: at the end of the dataset's retention if that is sooner."""
    retention = tx.get_one(Dataset, dataset_id).retention_until
    return min(until, retention) if retention else until


def refuse(tx: Transaction, caller: Caller, request_id: str, reason: str, now: datetime) -> Request:
    """Refuse a request; who asked is shown the reason."""
    found = _to_decide(tx, caller, request_id)
    return conclude(tx, caller, found, "refused", words.prose(reason, "/reason"), now)


def _to_decide(tx: Transaction, caller: Caller, request_id: str) -> Request:
    found = request(tx, caller, request_id, lock=True)
    refusal = why_not(tx, caller, found)
    if refusal is not None:
        raise refusal
    return found


def _narrowed(found: Request, narrowing: Narrowing) -> tuple[int, str | None]:
    period = found.period if narrowing.period is None else narrowing.period
    if not SHORTEST_PERIOD <= period <= found.period:
        raise Invalid(
            f"An approval can shorten the period ({found.period} s were requested), but not lengthen it.",
            field="/period",
        )
    slice_name = found.slice_name if narrowing.slice is None else words.word(narrowing.slice, "/slice")
    if found.slice_name not in (None, slice_name):
        raise Invalid(
            "An approval can narrow a request to one slice, but not change the slice that was requested.",
            field="/slice",
        )
    if narrowing.max_lifetime is not None and narrowing.max_lifetime < SHORTEST_LIFETIME:
        raise Invalid(f"A longest lifetime is {SHORTEST_LIFETIME} seconds or more.", field="/max_lifetime")
    return period, slice_name


def _check_lifetime(narrowing: Narrowing, longest: int | None) -> None:
    # It would change nothing: the rule's bound counts beside it. But whoever approves would believe that it does.
    if narrowing.max_lifetime is not None and longest is not None and narrowing.max_lifetime > longest:
        raise Invalid(
            f"The rule allows a credential to last {longest} s at most.",
            field="/max_lifetime",
            advice=f"Choose {longest} s or less, or leave it empty to use the rule's limit.",
        )
