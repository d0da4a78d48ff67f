"""Deciding about a request: who may, and approving (shorter or narrower than asked, never wider) or refusing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from broker import audit
from broker.access import words
from broker.access.foresight import Prospect, foresee
from broker.access.permissions import STEWARD, stewards_of
from broker.access.requests import (
    SHORTEST_PERIOD,
    as_caller,
    conclude,
    holder_of,
    holding_person,
    party_of,
    refuse_if_pointless,
    request,
)
from broker.caller import Caller
from broker.database import Transaction
from broker.errors import Conflict, Forbidden, GuestkeyError, Invalid
from broker.models import Dataset, Event, Grant, Person, Request, Service, Slice, Team, new_id
from broker.parts import Parts
from broker.proposals import active_admins

SHORTEST_LIFETIME = 60


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What an approver takes away: a shorter period or longest lifetime (seconds), one slice. None: as asked."""

    period: int | None = None
    slice: str | None = None
    max_lifetime: int | None = None


def why_not(tx: Transaction, caller: Caller, found: Request) -> GuestkeyError | None:
    """Why the caller may not decide about a request; None: it may."""
    if caller.kind != "person" or caller.vendor_id is not None:
        return Forbidden("Requests are decided by people of the organisation.")
    if caller.id in (found.person_id, found.for_person_id):
        return _self("You asked for this, so another approver must decide.")
    if found.service_id and caller.id in _know_secret(tx, found.service_id):
        return _self("You were shown this service's secret, so another approver must decide.")
    return not_decider(tx, caller, found.dataset_id, found.role)


def not_decider(tx: Transaction, caller: Caller, dataset_id: str, role: str) -> GuestkeyError | None:
    """Why the caller has no say about who holds a role on a dataset; None: it has."""
    if caller.kind != "person" or caller.vendor_id is not None:
        return Forbidden("Requests are decided by people of the organisation.")
    of = tx.get_one(Dataset, dataset_id)
    if of.owner_id == caller.id:
        return None
    stewards = tx.scalars(stewards_of().where(Grant.dataset_id == of.id)).all()
    if caller.id in stewards:
        # Else stewards could make stewards, and the owner would lose sight of who decides.
        return Forbidden("Only the owner decides who becomes a steward.") if role == STEWARD else None
    owned = _owner_is_active(tx, of)
    if owned or stewards:
        return Forbidden("The dataset's owner or a steward decides about this.", advice="Remind them.")
    without = "whose owner is suspended" if of.owner_id else "without an owner"
    if not caller.is_admin:
        return Forbidden(f"An admin decides about a dataset {without}.", advice="Ask one.")
    if _added_by(tx, of.id) == caller.subject:
        return _self(f"You added this dataset, which is one {without}, so another admin must decide.")
    if caller.id in _arranged_by(tx, of):
        return _self(f"You bound its slices or chose its labels, and it is one {without}: another admin must decide.")
    if of.owner_id and _suspended_by(tx, of.owner_id) == caller.subject:
        return _self("You suspended this dataset's owner, so another admin must decide.")
    return None


def barred(tx: Transaction, found: Request) -> set[str]:
    """The people who may not decide about a request because it is in a way their own; see `why_not`."""
    owner_id = tx.get_one(Dataset, found.dataset_id).owner_id
    shut_out_by = _suspended_by(tx, owner_id) if owner_id else None
    own = {f"person:{found.person_id}", _added_by(tx, found.dataset_id) or "", shut_out_by or ""}
    own |= _arranged_by(tx, tx.get_one(Dataset, found.dataset_id))
    know = _know_secret(tx, found.service_id) if found.service_id else set()
    return {name.removeprefix("person:") for name in own} | know


def admins_to_decide(tx: Transaction, found: Request, now: datetime) -> set[str]:
    """The admins who could decide about a request on a dataset without an active owner or steward."""
    return active_admins(tx, now) - barred(tx, found) - {found.for_person_id or ""}


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
        # Orders this grant against people being added by their lead (`broker.access.teams`).
        tx.execute(select(Team.id).where(Team.id == found.team_id).with_for_update())
    prospect = Prospect(holder_of(found), found.role, slice_name)
    foresight = foresee(
        tx, parts.rulebook, party_of(tx, asker_of(tx, found), found.service_id), found.dataset_id, prospect
    )
    refuse_if_pointless(foresight)
    _check_lifetime(narrowing, foresight.longest_lifetime)
    conclude(tx, caller, found, "approved", "", now)
    grant = Grant(
        dataset_id=found.dataset_id,
        role=found.role,
        person_id=None if found.team_id or found.service_id else holding_person(found),
        team_id=found.team_id,
        service_id=found.service_id,
        slice_name=slice_name,
        max_lifetime=narrowing.max_lifetime,
        purpose=found.purpose,
        ends_at=min(filter(None, (now + timedelta(seconds=period), found.until))),
        request_id=found.id,
    )
    return begin_grant(tx, caller, grant, prospect.holder, foresight.revision, now)


def begin_grant(
    tx: Transaction, caller: Caller, grant: Grant, holder: str, revision: int | None, now: datetime
) -> Grant:
    """Let a grant that was decided on begin now, never past the dataset's retention, with its event."""
    grant.id = new_id("gr")
    grant.starts_at = grant.created_at = now
    grant.approved_by = caller.id
    grant.ends_at = capped(tx, grant.dataset_id, grant.ends_at)
    tx.add(grant)
    tx.flush()
    _record_grant(tx, caller, grant, holder, revision, now)
    return grant


def capped(tx: Transaction, dataset_id: str, until: datetime) -> datetime:
    """When a grant ends that is to end then: at the end of the dataset's retention if that is sooner."""
    retention = tx.get_one(Dataset, dataset_id).retention_until
    return min(until, retention) if retention else until


def refuse(tx: Transaction, caller: Caller, request_id: str, reason: str, now: datetime) -> Request:
    """Refuse a request; who asked is shown the reason."""
    found = _to_decide(tx, caller, request_id)
    return conclude(tx, caller, found, "refused", words.prose(reason, "/reason"), now)


def asker_of(tx: Transaction, found: Request) -> Caller:
    """Who asked, or for whom they asked, as the gate needs to know them."""
    return as_caller(tx, holding_person(found), found.created_at)


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
            f"An approval may shorten the period ({found.period} s were asked for), never lengthen it.",
            field="/period",
        )
    slice_name = found.slice_name if narrowing.slice is None else words.word(narrowing.slice, "/slice")
    if found.slice_name not in (None, slice_name):
        raise Invalid("An approval may narrow to one slice, not change which.", field="/slice")
    if narrowing.max_lifetime is not None and narrowing.max_lifetime < SHORTEST_LIFETIME:
        raise Invalid(f"A longest lifetime is {SHORTEST_LIFETIME} seconds or more.", field="/max_lifetime")
    return period, slice_name


def _check_lifetime(narrowing: Narrowing, longest: int | None) -> None:
    # It would change nothing: the rule's bound counts beside it. But whoever approves would believe that it does.
    if narrowing.max_lifetime is not None and longest is not None and narrowing.max_lifetime > longest:
        raise Invalid(
            f"The rule lets a credential live {longest} s at most.",
            field="/max_lifetime",
            advice=f"Choose {longest} s or less, or leave it as the rule has it.",
        )


def _record_grant(
    tx: Transaction, caller: Caller, grant: Grant, holder: str, revision: int | None, now: datetime
) -> None:
    audit.record(
        tx,
        "grant.made",
        actor=caller.subject,
        subject=grant.id,
        now=now,
        details={
            "request": grant.request_id,
            "dataset": grant.dataset_id,
            "role": grant.role,
            "slice": grant.slice_name,
            "holder": holder,
            "ends_at": grant.ends_at.isoformat(),
            "max_lifetime": grant.max_lifetime,
            "revision": revision,
        },
        personal={"purpose": grant.purpose},
    )


def _self(detail: str) -> Conflict:
    return Conflict(detail, advice="Ask another owner, steward or admin.", code="self_decision")


def _know_secret(tx: Transaction, service_id: str) -> set[str]:
    """Who made a service, and who was last shown its secret."""
    found = tx.get_one(Service, service_id)
    return {found.created_by, found.secret_seen_by or found.created_by}


def _owner_is_active(tx: Transaction, of: Dataset) -> bool:
    owner = tx.get(Person, of.owner_id) if of.owner_id else None
    return owner is not None and owner.status == "active"


def _suspended_by(tx: Transaction, person_id: str) -> str | None:
    """Who suspended a person last; whoever shuts an owner out does not decide in their place."""
    query = select(Event.actor).where(Event.subject == person_id, Event.kind == "person.suspended")
    return tx.execute(query.order_by(Event.number.desc()).limit(1)).scalar_one_or_none()


def _arranged_by(tx: Transaction, of: Dataset) -> set[str]:
    """The people who chose what a dataset shows, or under which labels: none of them lets others see it besides."""
    bound = select(Slice.bound_by).where(
        Slice.dataset_id == of.id, Slice.state != "retired", Slice.bound_by.is_not(None)
    )
    return {*of.labelled_by, *(id_ for id_ in tx.scalars(bound) if id_)}


def _added_by(tx: Transaction, dataset_id: str) -> str | None:
    query = select(Event.actor).where(Event.subject == dataset_id, Event.kind == "dataset.added")
    return tx.execute(query.limit(1)).scalar_one_or_none()
