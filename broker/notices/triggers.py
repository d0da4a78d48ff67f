"""What is told of what: for each kind its topic, whom it concerns, and the facts its words are made of.

The kinds are those of `broker.log.audit.NOTICED`, and those that time alone brings about (`broker.notices.outbox`).
Who is told is what the records say at this moment; ids only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.identity.permissions import stewards_of
from broker.models import (
    Dataset,
    Grant,
    Lease,
    Notice,
    Offer,
    Person,
    Proposal,
    Request,
    RoleHeld,
    Service,
    Slice,
    Team,
    TeamMember,
    Vendor,
)
from broker.notices.rendering import format_time, plain
from broker.registry import proposals
from broker.registry.approvers import barred, datasets_of_holder, why_not

# What time alone brings about.
GRANT_LAPSING, REQUEST_LAPSING, PROPOSAL_LAPSING = "grant.lapsing", "request.lapsing", "proposal.lapsing"
ACTS = {
    "apply_policy": "put new rules in force",
    "bind_source": "add a sign-in source",
    "give_role": "assign a role of the organisation",
    "reset_factor": "reset a second factor",
    "change_dataset": "change a dataset's owner, labels or retention",
    "add_slice": "add a slice to a dataset",
    "rotate_secret": "replace a service's secret",
    "add_member": "add a person to a team that has a grant",
    "trust_source_mfa": "trust a sign-in source's own second factor",
}

# A proposal is approved and carried out in one transaction, whose notice is written at its end.
_ONE_ACT = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a notice concerns, the facts for its words, and the page to open. `you`: it happened to those people.

    `beside`: who hears of it as of somebody else's, under a topic of their own if one is named.
    `channels`: the organisation's channels hear of it too.
    """

    people: list[str]
    facts: Mapping[str, object]
    path: str
    you: bool = False
    beside: Sequence[str] = ()
    beside_topic: str = ""
    channels: bool = True


_Told = Callable[[Transaction, Notice, datetime], Audience | None]


@dataclass(frozen=True, slots=True)
class Trigger:
    """One kind. `to_actor`: whoever did it is told too."""

    topic: str
    told: _Told
    to_actor: bool = False


def _asked(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    request = tx.get_one(Request, notice.subject)
    if request.state != "pending":
        return None
    return Audience(approvers(tx, request, now), _of_request(tx, request), f"/requests/{request.id}")


def _undecided(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    asked = _asked(tx, notice, now)
    if asked is None:
        return None
    asker = tx.get_one(Request, notice.subject).person_id
    return replace(asked, people=[asker], you=True, beside=asked.people, beside_topic="to_decide")


def _decided(tx: Transaction, notice: Notice, _now: datetime) -> Audience:
    request = tx.get_one(Request, notice.subject)
    # Approved, it is told to whoever now holds the grant as theirs.
    beside = [] if notice.kind == "request.approved" else [*filter(None, [request.for_person_id])]
    facts = _of_request(tx, request)
    return Audience([request.person_id], facts, f"/requests/{request.id}", you=True, beside=beside)


def _given(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    grant = tx.get_one(Grant, notice.subject)
    if grant.revoked_at is not None:
        return None
    told = _to_holders(tx, grant, now)
    if grant.request_id is None:
        return told if grant.service_id else replace(told, beside=leads_of(tx, grant, now), beside_topic="staff")
    # Who asked, and the channels, hear that the request was approved.
    asker = tx.get_one(Request, grant.request_id).person_id
    others = [[person for person in people if person != asker] for people in (told.people, told.beside)]
    return replace(told, people=others[0], beside=others[1], channels=False)


def _grant(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    grant = tx.get_one(Grant, notice.subject)
    if notice.kind == GRANT_LAPSING and grant.revoked_at is not None:
        return None
    return _to_holders(tx, grant, now)


def _to_holders(tx: Transaction, grant: Grant, now: datetime) -> Audience:
    """A grant, as those who hold it are told of it; of a service's, those who answer for the service."""
    facts = {
        "dataset": _dataset(tx, grant.dataset_id),
        "role": grant.role,
        "ends_at": format_time(grant.ends_at),
        "holder": _holder(tx, grant.person_id, grant.team_id, grant.service_id),
        "team": bool(grant.team_id),
    }
    concerned, path = holders(tx, grant, now), f"/grants/{grant.id}"
    if grant.service_id:
        return Audience([], facts, path, beside=concerned)
    return Audience(concerned, facts, path, you=True)


def _own_account(tx: Transaction, notice: Notice, _now: datetime) -> Audience | None:
    """What became of somebody's account: told to them whoever did it, because it may have been a thief."""
    person = tx.get_one(Person, notice.subject)
    if notice.kind == "person.confirmed" and person.status != "active":
        return None
    return Audience([person.id], _of_person(tx, person), "/security", you=True)


def _joined(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    person = tx.get_one(Person, notice.subject)
    if person.status != "pending":
        return None
    return Audience(with_role(tx, "admin", now=now), _of_person(tx, person), f"/people/{person.id}")


def _staff(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    person = tx.get_one(Person, notice.subject)
    if person.vendor_id is None:
        return None
    leads = with_role(tx, "lead", now=now, vendor_id=person.vendor_id)
    return Audience(leads, _of_person(tx, person), f"/people/{person.id}")


def _proposed(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    proposal = tx.get_one(Proposal, notice.subject)
    if proposal.state != "pending":
        return None
    facts = _of_proposal(tx, proposal)
    owners = proposals.owners_concerned(tx, proposal)
    path = f"/proposals/{proposal.id}"
    return Audience(with_role(tx, "admin", now=now), facts, path, beside=owners, beside_topic="to_decide")


def _agreed(tx: Transaction, notice: Notice, _now: datetime) -> Audience:
    proposal = tx.get_one(Proposal, notice.subject)
    return Audience([proposal.proposed_by], _of_proposal(tx, proposal), f"/proposals/{proposal.id}", you=True)


def _changed(tx: Transaction, notice: Notice, _now: datetime) -> Audience | None:
    """What was changed about a dataset, as its owner is told of it, and whoever it was taken from."""
    dataset = tx.get_one(Dataset, notice.subject)
    agreed = select(Proposal.details["owner_id_before"].astext).where(
        Proposal.act == "change_dataset",
        Proposal.subject == dataset.id,
        Proposal.state == "approved",
        Proposal.decided_at.between(notice.created_at - _ONE_ACT, notice.created_at),
    )
    before = tx.execute(agreed.order_by(Proposal.decided_at.desc()).limit(1)).scalar()
    return _to_owners(tx, notice, [dataset.id], f"/datasets/{dataset.slug}", others=[before] if before else [])


def _of_dataset(record: type[Any], page: str) -> _Told:
    """What owners are told of a dataset, or of something of its, with the page of the dataset to open."""

    def told(tx: Transaction, notice: Notice, _now: datetime) -> Audience | None:
        about = tx.get_one(record, notice.subject)
        dataset = about if isinstance(about, Dataset) else tx.get_one(Dataset, about.dataset_id)
        return _to_owners(tx, notice, [dataset.id], f"/datasets/{dataset.slug}{page}")

    return told


def _secret_rotated(tx: Transaction, notice: Notice, _now: datetime) -> Audience | None:
    return _to_owners(tx, notice, datasets_of_holder(tx, service_id=notice.subject), "/services")


def _member_added(tx: Transaction, notice: Notice, _now: datetime) -> Audience | None:
    return _to_owners(tx, notice, datasets_of_holder(tx, team_id=notice.subject), f"/teams/{notice.subject}")


def _to_owners(
    tx: Transaction, notice: Notice, dataset_ids: Sequence[str], path: str, *, others: Sequence[str] = ()
) -> Audience | None:
    """To the active owners of these datasets; nobody, where it concerns none."""
    if not dataset_ids:
        return None
    query = select(Person.id).join(Dataset, Dataset.owner_id == Person.id).where(Dataset.id.in_(dataset_ids))
    concerned = Person.id.in_([*tx.scalars(query), *others])
    people = tx.scalars(select(Person.id).where(concerned, Person.status == "active"))
    kind, _, actor = notice.actor.partition(":")
    facts = {
        "who": _name(tx, actor) if kind == "person" else "Somebody",
        "datasets": ", ".join(sorted(_dataset(tx, dataset_id) for dataset_id in dataset_ids)),
    }
    return Audience(sorted(people), facts, path)


def _failed(tx: Transaction, notice: Notice, now: datetime) -> Audience:
    lease = tx.get_one(Lease, notice.subject)
    facts = {"dataset": _dataset(tx, lease.dataset_id)}
    return Audience(with_role(tx, "admin", now=now), facts, f"/leases/{lease.id}")


def _found(tx: Transaction, notice: Notice, now: datetime) -> Audience:
    """What the worker found where no record of ours leads: its name is an operator's, not a page's."""
    facts = {"what": plain(notice.subject)}
    return Audience(with_role(tx, "admin", now=now), facts, f"/events?kind={notice.kind}")


def _alarm(tx: Transaction, notice: Notice, now: datetime) -> Audience:
    path = "/installation" if notice.kind.startswith("installation.") else f"/events?kind={notice.kind}"
    facts = {"who": _name(tx, notice.actor.partition(":")[2])}
    return Audience(with_role(tx, "admin", "auditor", now=now), facts, path)


def _slice_changed(tx: Transaction, notice: Notice, now: datetime) -> Audience | None:
    slice_ = tx.get_one(Slice, notice.subject)
    if slice_.state != "changed":
        return None
    dataset = tx.get_one(Dataset, slice_.dataset_id)
    owner = tx.get(Person, dataset.owner_id) if dataset.owner_id else None
    people = [owner.id] if owner is not None and owner.status == "active" else with_role(tx, "admin", now=now)
    facts = {"dataset": plain(dataset.title), "slice": plain(slice_.name)}
    return Audience(people, facts, f"/datasets/{dataset.slug}/slices")


_KINDS: Sequence[tuple[Trigger, Sequence[str]]] = (
    (Trigger("own_grants", _grant), (GRANT_LAPSING, "grant.revoked")),
    (Trigger("two_person", _proposed), (PROPOSAL_LAPSING, "proposal.made")),
    (Trigger("own_requests", _undecided), (REQUEST_LAPSING,)),
    (Trigger("own_datasets", _changed), ("dataset.changed",)),
    (Trigger("own_datasets", _of_dataset(Dataset, "")), ("dataset.resumed",)),
    (
        Trigger("own_account", _own_account, to_actor=True),
        (
            "factor.enrolled",
            "factor.removed",
            "factor.replaced",
            "factor.reset",
            "recovery_code.used",
            "recovery_codes.replaced",
        ),
    ),
    (Trigger("own_grants", _given), ("grant.made",)),
    (
        Trigger("emergency", _alarm, to_actor=True),
        ("installation.closed", "installation.opened", "recovery.begun", "recovery.used"),
    ),
    (Trigger("failures", _failed, to_actor=True), ("lease.revoke_failed", "lease.vanished")),
    (Trigger("failures", _found), ("lease.stray_ended", "place.silent")),
    (Trigger("own_datasets", _of_dataset(Offer, "/who")), ("offer.made",)),
    (Trigger("own_grants", _own_account), ("person.confirmed",)),
    (Trigger("joins", _joined), ("person.joined",)),
    (Trigger("staff", _staff), ("person.suspended",)),
    (Trigger("two_person", _agreed), ("proposal.approved", "proposal.lapsed", "proposal.refused")),
    (Trigger("own_requests", _decided), ("request.approved", "request.lapsed", "request.refused", "request.withdrawn")),
    (Trigger("to_decide", _asked), ("request.made", "request.reminded")),
    (Trigger("own_datasets", _secret_rotated), ("service.secret_rotated",)),
    (Trigger("own_datasets", _of_dataset(Slice, "/slices")), ("slice.added",)),
    (Trigger("own_datasets", _slice_changed), ("slice.changed",)),
    (Trigger("own_datasets", _member_added), ("team.member_added",)),
)
TRIGGERS: Mapping[str, Trigger] = {kind: trigger for trigger, kinds in _KINDS for kind in kinds}


def _of_request(tx: Transaction, request: Request) -> Mapping[str, object]:
    """The facts of a request: `who` asked, and the `holder` if it is for somebody or something else."""
    person = tx.get_one(Person, request.person_id)
    for_another = request.for_person_id or request.team_id or request.service_id
    return {
        **_of_person(tx, person),
        "holder": _holder(tx, request.for_person_id, request.team_id, request.service_id) if for_another else "",
        "dataset": _dataset(tx, request.dataset_id),
        "role": request.role,
        "lapses_at": format_time(request.lapses_at),
    }


def _holder(tx: Transaction, person_id: str | None, team_id: str | None, service_id: str | None) -> str:
    if team_id:
        return f"the team {plain(tx.get_one(Team, team_id).name)}"
    if service_id:
        return f"the service {plain(tx.get_one(Service, service_id).name)}"
    return _name(tx, person_id or "")


def _of_person(tx: Transaction, person: Person) -> Mapping[str, object]:
    vendor = tx.get_one(Vendor, person.vendor_id) if person.vendor_id else None
    return {"who": plain(person.name), "vendor": plain(vendor.name) if vendor else ""}


def _of_proposal(tx: Transaction, proposal: Proposal) -> Mapping[str, object]:
    return {
        "who": _name(tx, proposal.proposed_by),
        "act": ACTS.get(proposal.act, plain(proposal.act)),
        "owner_may": proposal.act in proposals.OWNER_ACTS,
        "lapses_at": format_time(proposal.lapses_at),
    }


def _dataset(tx: Transaction, dataset_id: str) -> str:
    return plain(tx.get_one(Dataset, dataset_id).title)


def _name(tx: Transaction, person_id: str) -> str:
    person = tx.get(Person, person_id)
    return plain(person.name) if person is not None else "Somebody"


def with_role(tx: Transaction, *roles: str, now: datetime, vendor_id: str | None = None) -> list[str]:
    """The active people who hold one of these roles now; of the organisation unless a vendor is named."""
    query = (
        select(Person.id)
        .join(RoleHeld, RoleHeld.person_id == Person.id)
        .where(
            RoleHeld.role.in_(roles),
            RoleHeld.ended_at.is_(None),
            or_(RoleHeld.until.is_(None), RoleHeld.until > now),
            Person.status == "active",
            Person.vendor_id.is_not_distinct_from(vendor_id),
        )
    )
    return sorted(set(tx.scalars(query)))


def approvers(tx: Transaction, request: Request, now: datetime) -> list[str]:
    """Whoever may decide about a request; if nobody may, the admins, who can change that."""
    dataset = tx.get_one(Dataset, request.dataset_id)
    named = {dataset.owner_id, *tx.scalars(stewards_of().where(Grant.dataset_id == dataset.id))} - {None}
    tending = tx.scalars(select(Person).where(Person.id.in_(named), Person.status == "active")).all()
    admins = with_role(tx, "admin", now=now)
    if not tending:
        own = barred(tx, request)
        return [admin for admin in admins if admin not in own] or admins
    may = [person.id for person in tending if why_not(tx, Caller.not_asking(person, now), request) is None]
    return sorted(may) or admins


def holders(tx: Transaction, grant: Grant, now: datetime) -> list[str]:
    """Who holds a grant; for a service its vendor's leads, and for the organisation's own whoever made it."""
    if grant.person_id is not None:
        return [grant.person_id]
    if grant.team_id is not None:
        return sorted(tx.scalars(select(TeamMember.person_id).where(TeamMember.team_id == grant.team_id)))
    service = tx.get_one(Service, grant.service_id)
    if service.vendor_id is not None:
        return with_role(tx, "lead", now=now, vendor_id=service.vendor_id)
    made_by = tx.get(Person, service.created_by)
    return [made_by.id] if made_by is not None else []


def leads_of(tx: Transaction, grant: Grant, now: datetime) -> list[str]:
    """The leads of the vendor whose person or team holds a grant, beside those who hold it; nobody's for our own."""
    holder: Team | Person = tx.get_one(Team, grant.team_id) if grant.team_id else tx.get_one(Person, grant.person_id)
    return with_role(tx, "lead", now=now, vendor_id=holder.vendor_id) if holder.vendor_id is not None else []
