"""Requests: asking for a role on a dataset, for a purpose and a time, and taking that back.

Deciding about one is `broker.requests.approving`; one that nobody decides lapses (`broker.worker.worker`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, case, exists, false, func, not_, or_, select, true, update

from broker.base import words
from broker.base.database import Transaction, one_at_a_time
from broker.base.errors import Conflict, Forbidden, Invalid
from broker.base.ids import is_id, new_id
from broker.gate.explain import ProposedGrant, Simulation, simulate
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Menu, Noun, Search
from broker.identity.permissions import STEWARD, is_lead, looked_after, missing, requests_seen, stewards_of
from broker.log import audit
from broker.models import Dataset, Grant, Person, Request, Service
from broker.registry.datasets import dataset
from broker.registry.naming import held_by
from broker.registry.people import person
from broker.registry.teams import team
from broker.runtime.parts import Parts

SHORTEST_PERIOD = 60
LONGEST_PERIOD = 366 * 86400
MOST_PENDING = 50
REMIND_EVERY = timedelta(days=1)
View = Literal["mine", "queue", "decided", "others", "all"]


@dataclass(frozen=True, slots=True)
class NewRequest:
    """What is asked for; at most one of person, team and service, else it is for the caller.

    `period` is in seconds from the approval; `until` ends it sooner.
    """

    dataset: str
    role: str
    purpose: str
    period: int
    slice: str | None = None
    team_id: str | None = None
    service_id: str | None = None
    person_id: str | None = None
    until: datetime | None = None


def _viewed(_: Transaction, caller: Caller, view: View) -> ColumnElement[bool]:
    """`mine`: those the caller made; `queue`: waiting for its decision; `decided`: those that were its to decide;
    `others`: waiting for somebody else's decision.
    """
    mine, pending = Request.person_id == caller.id, Request.state == "pending"
    if view == "mine":
        return mine
    if view == "queue":
        return and_(pending, ~mine, _decided_by(caller))
    if view == "decided":
        return and_(~pending, ~mine, _decided_by(caller))
    return and_(pending, or_(mine, not_(_decided_by(caller)))) if view == "others" else true()


REQUESTS = Noun(
    "request",
    "requests",
    "rq",
    Request,
    about="Requests for a role on a dataset, and deciding them.",
    menu=Menu("Requests"),
    display=Display(
        columns="id!, state, dataset!, role, who=person.name, lapses=lapses_at@",
        none="No request. Next: guestkey request new DATASET --role ROLE --purpose WHY",
        details=(
            "id, state, dataset, role, slice, who=person.name, for=for_person.name, purpose, period#, until@, "
            "asked=created_at@, lapses=lapses_at@, waiting for=waits_for, decided=decided_at@, decided "
            "by=decided_by.name, reason=decision_reason, grant, approved until=granted.ends_at@, approved "
            "for=granted.period#, approved slice=granted.slice, longest credential=granted.max_lifetime#, "
            "less than requested in=granted.less, vendor=facts.vendor_name, vendor status=facts.vendor_status, "
            "their status=facts.person_status, issuer=facts.issuer, labels=facts.labels, kept "
            "until=facts.retention_until@, longest period=facts.longest_period#, longest by "
            "rule=facts.longest_lifetime#, rules=facts.rules, earlier grants=facts.history.earlier_grants, "
            "earlier refusals=facts.history.earlier_refusals, leases in 90 days=facts.history.leases_in_90_days, "
            "held at this vendor=facts.history.grants_at_vendor, you may decide=facts.may_decide, why "
            "not=facts.why_not"
        ),
    ),
    seen=requests_seen,
    called=held_by(
        Request,
        case(
            (
                Request.team_id.is_(None) & Request.service_id.is_(None),
                func.coalesce(Request.for_person_id, Request.person_id),
            )
        ),
    ),
    filters=(
        Filter("state", Literal["pending", "approved", "refused", "withdrawn", "lapsed"], Request.state),
        Filter("view", View, _viewed, "`queue`: waiting for your decision.", "all"),
    ),
    search=Search((), lambda found: (found.id, found.id, "")),
    plain=("approved", "refused", "withdrawn"),
    events={
        "request.lapsed": "{who} let the request {whom} lapse: no one decided in time.",
        "request.reminded": "{who} sent a reminder about the request {whom}.",
        "request.made": "{who} requested {whom}.",
    },
)
request = REQUESTS.one


def grants_made(tx: Transaction, request_ids: Collection[str]) -> dict[str | None, Grant]:
    """What came of these requests, by the request's id."""
    return {grant.request_id: grant for grant in tx.scalars(select(Grant).where(Grant.request_id.in_(request_ids)))}


def ask(parts: Parts, tx: Transaction, caller: Caller, new: NewRequest, now: datetime) -> Request:
    """Ask for a role on a dataset.

    Raises:
        NotFound: no such dataset, team or service for this caller.
        Forbidden: another person, a team or a service is asked for by its vendor's lead, an organisation's service
            by an admin.
        Conflict: a grant could never open anything (the detail says why), or the same is asked for already.
    """
    if caller.kind != "person":
        raise Forbidden("Services cannot send requests; a person sends them for a service.")
    of = dataset(tx, caller, new.dataset)
    if not SHORTEST_PERIOD <= new.period <= LONGEST_PERIOD:
        raise Invalid(f"A period must be {SHORTEST_PERIOD} to {LONGEST_PERIOD} seconds.", field="/period")
    purpose = words.prose(new.purpose, "/purpose")
    new = _plain(caller, new)
    prospect = ProposedGrant(
        holder=_holder(tx, caller, new),
        role=words.word(new.role, "/role"),
        slice=words.word(new.slice, "/slice") if new.slice is not None else None,
    )
    for_another = new.service_id or new.person_id
    party = party_of(tx, new.service_id, new.person_id or caller.id, now) if for_another else caller
    simulation = simulate(tx, parts.rulebook, party, of.id, prospect)
    refuse_if_pointless(simulation)
    _check_not_asked(tx, caller, of.id, new)
    made = Request(
        id=new_id("rq"),
        person_id=caller.id,
        for_person_id=new.person_id,
        team_id=new.team_id,
        service_id=new.service_id,
        dataset_id=of.id,
        role=prospect.role,
        slice_name=prospect.slice,
        purpose=purpose,
        period=new.period,
        until=new.until,
        state="pending",
        created_at=now,
        lapses_at=min(filter(None, (now + timedelta(seconds=parts.settings.request_lifetime), new.until))),
    )
    tx.add(made)
    tx.flush()
    details = {
        "dataset": of.id,
        "role": made.role,
        "slice": made.slice_name,
        "period": made.period,
        "until": made.until.isoformat() if made.until else None,
        "holder": prospect.holder,
        "revision": simulation.revision,
    }
    personal = {"purpose": purpose}
    audit.record(tx, "request.made", actor=caller.subject, subject=made.id, now=now, details=details, personal=personal)
    return made


def withdraw(tx: Transaction, caller: Caller, request_id: str, now: datetime) -> Request:
    """Take one's own request back; the lead may take back what their vendor's staff asked for."""
    found = request(tx, caller, request_id, lock=True)
    if found.person_id != caller.id and not is_lead(caller, caller.vendor_id):
        raise Forbidden(
            "Only the person who sent a request can withdraw it.", advice="If you decide about it, you can refuse it."
        )
    return conclude(tx, caller, found, "withdrawn", "", now)


def remind(tx: Transaction, caller: Caller, request_id: str, now: datetime) -> Request:
    """Tell those who decide about one's request once more; at most once a day.

    Raises:
        NotFound: there is none of that id that the caller may see.
        Forbidden: only who asked reminds.
        Conflict: it is no longer pending, or was sent or reminded of less than a day ago.
    """
    found = request(tx, caller, request_id, lock=True)
    if found.person_id != caller.id:
        raise Forbidden("Only the person who sent a request can send a reminder.")
    if found.state != "pending" or found.lapses_at <= now:
        raise Conflict("This request is no longer waiting for a decision.", advice="Open it to see the result.")
    again = may_remind_from(found)
    if now < again:
        raise Conflict(
            "The people who decide were notified less than a day ago.",
            advice=f"You can send a reminder after {again:%d %b, %H:%M} UTC.",
        )
    found.reminded_at = now
    tx.flush()
    audit.record(tx, "request.reminded", actor=caller.subject, subject=found.id, now=now)
    return found


def untended(tx: Transaction, dataset_ids: Collection[str]) -> set[str]:
    """Those of these datasets that have neither an active owner nor a steward, so that admins decide about them."""
    owned = exists().where(Person.id == Dataset.owner_id, Person.status == "active")
    stewarded = stewards_of().where(Grant.dataset_id == Dataset.id).correlate(Dataset).exists()
    return set(tx.scalars(select(Dataset.id).where(Dataset.id.in_(dataset_ids), ~owned, ~stewarded)))


def undecidable(tx: Transaction, request_ids: Collection[str]) -> set[str]:
    """Those of these requests about which no owner or steward can decide: there is none, or it is their own."""
    return set(tx.scalars(select(Request.id).where(Request.id.in_(request_ids), ~_decidable())))


def may_remind_from(found: Request) -> datetime:
    """From when on those who decide may be reminded of a request."""
    return (found.reminded_at or found.created_at) + REMIND_EVERY


def conclude(tx: Transaction, caller: Caller, found: Request, state: str, reason: str, now: datetime) -> Request:
    """Bring a pending request to its end, with its event; approvals add the grant.

    Raises:
        Conflict: it is no longer pending.
    """
    if found.state == "pending" and found.lapses_at <= now:
        raise Conflict(
            "This request lapsed without a decision.",
            advice="Send a new request; the form can be filled from the old one.",
        )
    changed = tx.scalars(
        update(Request)
        .where(Request.id == found.id, Request.state == "pending")
        .values(state=state, decided_at=now, decided_by=caller.id, decision_reason=reason)
        .returning(Request)
    ).one_or_none()
    if changed is None:
        raise Conflict(f"This request is already {found.state}.")
    audit.record(tx, f"request.{state}", actor=caller.subject, subject=found.id, now=now, personal={"reason": reason})
    return changed


def refuse_if_pointless(simulation: Simulation) -> None:
    """Refuse a grant that could never open anything as things are.

    Raises:
        NotFound: the dataset is not there for whoever would hold it.
        Conflict: naming every lasting reason.
    """
    if any(reason.code == "dataset_unknown" for reason in simulation.lasting):
        raise missing("dataset")
    if simulation.lasting:
        raise Conflict(
            "This grant would give no access now: " + " ".join(reason.sentence for reason in simulation.lasting),
            advice=" ".join(dict.fromkeys(reason.advice for reason in simulation.lasting)),
            code="grant_pointless",
        )


def party_of(tx: Transaction, service_id: str | None, person_id: str, now: datetime) -> Caller:
    """Who would use a grant, as the gate needs to know them beforehand: the service, or else the person."""
    return Caller.not_asking(tx.get_one(Service, service_id) if service_id else tx.get_one(Person, person_id), now)


def same_pending(tx: Transaction, caller: Caller, dataset_id: str, new: NewRequest) -> str | None:
    """The id of the caller's undecided request for the very same, if there is one."""
    new = _plain(caller, new)
    mine = (Request.person_id == caller.id, Request.state == "pending", Request.dataset_id == dataset_id)
    same = (
        Request.role == new.role,
        Request.slice_name.is_not_distinct_from(new.slice),
        Request.for_person_id.is_not_distinct_from(new.person_id),
        Request.team_id.is_not_distinct_from(new.team_id),
        Request.service_id.is_not_distinct_from(new.service_id),
    )
    return tx.scalar(select(Request.id).where(*mine, *same))


def _plain(caller: Caller, new: NewRequest) -> NewRequest:
    """What is asked for oneself by name, as it is asked for and recorded without."""
    return replace(new, person_id=None) if new.person_id == caller.id else new


def _holder(tx: Transaction, caller: Caller, new: NewRequest) -> str:
    if sum(map(bool, (new.person_id, new.team_id, new.service_id))) > 1:
        raise Invalid("Name only one of person, team and service.", field="/team")
    if new.person_id:
        of_staff = person(tx, caller, new.person_id)
        if not is_lead(caller, of_staff.vendor_id):
            raise Forbidden(
                "Only the vendor's lead can send requests for its people.",
                advice="They can send the request themselves.",
            )
        return f"person:{of_staff.id}"
    if new.team_id:
        of = team(tx, caller, new.team_id)
        if not is_lead(caller, of.vendor_id):
            raise Forbidden(
                "Only the vendor's lead can send requests for a team.",
                advice="Ask your lead, or send a request for yourself.",
            )
        return f"team:{of.id}"
    if new.service_id:
        return f"service:{_service(tx, caller, new.service_id).id}"
    return caller.subject


def _service(tx: Transaction, caller: Caller, service_id: str) -> Service:
    found = None
    if is_id(service_id):
        own = Service.vendor_id.is_not_distinct_from(caller.vendor_id)
        found = tx.scalars(select(Service).where(Service.id == service_id, own)).one_or_none()
    if found is None:
        raise missing("service")
    if not (caller.is_admin or is_lead(caller, found.vendor_id)):
        raise Forbidden(
            "Only the vendor's lead (for the organisation's services: an admin) can send requests for a service."
        )
    return found


def _check_not_asked(tx: Transaction, caller: Caller, dataset_id: str, new: NewRequest) -> None:
    # Two identical requests at once would each miss the other.
    one_at_a_time(tx, f"requests {caller.id}")
    mine = and_(Request.person_id == caller.id, Request.state == "pending")
    if tx.execute(select(func.count()).where(mine)).scalar_one() >= MOST_PENDING:
        raise Conflict(f"You have {MOST_PENDING} undecided requests.", advice="Withdraw what you no longer need.")
    if same_pending(tx, caller, dataset_id, new):
        raise Conflict("You already have this request pending.")


def _decided_by(caller: Caller) -> ColumnElement[bool]:
    """The condition that a request may be this caller's to decide; `approving.why_not` has the last word.

    Admins also find what no owner or steward can decide, because it is their own: only an admin can change that.
    """
    cared_for = Request.dataset_id.in_(looked_after(caller))
    return or_(cared_for, ~_decidable()) if caller.is_admin else cared_for


def _decidable() -> ColumnElement[bool]:
    """The condition that an active owner or a steward may decide about a request; see `approving.why_not`."""
    owner = (Dataset.id == Request.dataset_id, Person.id == Dataset.owner_id, Person.status == "active")
    owned = exists().where(*owner, ~_own(Person.id)).correlate(Request)
    stewards = stewards_of().where(Grant.dataset_id == Request.dataset_id, Request.role != STEWARD)
    return or_(owned, stewards.where(~_own(Grant.person_id)).correlate(Request).exists())


def _own(person_id: Any) -> ColumnElement[bool]:
    """The condition that a request is in a way somebody's own: they asked, it is for them, or they know the secret."""
    shown = or_(Service.created_by == person_id, Service.secret_seen_by == person_id)
    knows = exists().where(Service.id == Request.service_id, shown).correlate_except(Service)
    return or_(person_id == Request.person_id, func.coalesce(Request.for_person_id == person_id, false()), knows)
