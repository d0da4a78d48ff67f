"""What is told of what: for each kind its topic, whom it concerns, and the facts its words are made of.

The kinds are those of `broker.audit.NOTICED`, and `grant.lapsing`, which time alone brings about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.database import Transaction
from broker.models import Dataset, Grant, Lease, Notice, Person, Proposal, Request, Vendor
from broker.notices.people import approvers, holders, with_role
from broker.notices.wording import at, plain

LAPSING = "grant.lapsing"
ACTS = {
    "apply_policy": "put new rules in force",
    "bind_source": "bind a sign-in source",
    "give_role": "give a role of the organisation",
    "reset_factor": "reset a second factor",
    "trust_source_mfa": "trust a sign-in source's own second factor",
}


@dataclass(frozen=True, slots=True)
class Told:
    """Whom a notice concerns, the facts for its words, and the page to open. `you`: it happened to those people."""

    people: list[str]
    facts: Mapping[str, object]
    path: str
    you: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """One kind. `to_actor`: whoever did it is told too."""

    topic: str
    told: Callable[[Transaction, Notice, datetime], Told | None]
    to_actor: bool = False


def _asked(tx: Transaction, notice: Notice, now: datetime) -> Told | None:
    request = tx.get_one(Request, notice.subject)
    if request.state != "pending":
        return None
    return Told(approvers(tx, request, now), _of_request(tx, request), f"/requests/{request.id}")


def _decided(tx: Transaction, notice: Notice, _now: datetime) -> Told:
    request = tx.get_one(Request, notice.subject)
    told = [request.person_id, *filter(None, [request.for_person_id])]
    return Told(told, _of_request(tx, request), f"/requests/{request.id}", you=True)


def _grant(tx: Transaction, notice: Notice, now: datetime) -> Told | None:
    grant = tx.get_one(Grant, notice.subject)
    if notice.kind == LAPSING and grant.revoked_at is not None:
        return None
    facts = {"dataset": _dataset(tx, grant.dataset_id), "role": grant.role, "ends_at": at(grant.ends_at)}
    return Told(holders(tx, grant, now), facts, f"/grants/{grant.id}", you=True)


def _joined(tx: Transaction, notice: Notice, now: datetime) -> Told | None:
    person = tx.get_one(Person, notice.subject)
    if person.status != "pending":
        return None
    return Told(with_role(tx, "admin", now=now), _of_person(tx, person), f"/people/{person.id}")


def _staff(tx: Transaction, notice: Notice, now: datetime) -> Told | None:
    person = tx.get_one(Person, notice.subject)
    if person.vendor_id is None:
        return None
    leads = with_role(tx, "lead", now=now, vendor_id=person.vendor_id)
    return Told(leads, _of_person(tx, person), f"/people/{person.id}")


def _proposed(tx: Transaction, notice: Notice, now: datetime) -> Told | None:
    proposal = tx.get_one(Proposal, notice.subject)
    if proposal.state != "pending":
        return None
    return Told(with_role(tx, "admin", now=now), _of_proposal(tx, proposal), f"/proposals/{proposal.id}")


def _agreed(tx: Transaction, notice: Notice, _now: datetime) -> Told:
    proposal = tx.get_one(Proposal, notice.subject)
    return Told([proposal.proposed_by], _of_proposal(tx, proposal), f"/proposals/{proposal.id}", you=True)


def _failed(tx: Transaction, notice: Notice, now: datetime) -> Told:
    lease = tx.get_one(Lease, notice.subject)
    facts = {"dataset": _dataset(tx, lease.dataset_id)}
    return Told(with_role(tx, "admin", now=now), facts, f"/leases/{lease.id}")


def _alarm(tx: Transaction, notice: Notice, now: datetime) -> Told:
    path = "/installation" if notice.kind.startswith("installation.") else f"/events?kind={notice.kind}"
    facts = {"who": _name(tx, notice.actor.partition(":")[2])}
    return Told(with_role(tx, "admin", "auditor", now=now), facts, path)


CAUSES: Mapping[str, Cause] = {
    LAPSING: Cause("own_grants", _grant),
    "grant.revoked": Cause("own_grants", _grant),
    "installation.closed": Cause("emergency", _alarm, to_actor=True),
    "installation.opened": Cause("emergency", _alarm, to_actor=True),
    "lease.revoke_failed": Cause("failures", _failed, to_actor=True),
    "person.joined": Cause("joins", _joined),
    "person.suspended": Cause("staff", _staff),
    "proposal.approved": Cause("two_person", _agreed),
    "proposal.lapsed": Cause("two_person", _agreed),
    "proposal.made": Cause("two_person", _proposed),
    "proposal.refused": Cause("two_person", _agreed),
    "recovery.begun": Cause("emergency", _alarm, to_actor=True),
    "recovery.used": Cause("emergency", _alarm, to_actor=True),
    "request.approved": Cause("own_requests", _decided),
    "request.lapsed": Cause("own_requests", _decided),
    "request.made": Cause("to_decide", _asked),
    "request.refused": Cause("own_requests", _decided),
    "request.reminded": Cause("to_decide", _asked),
    "request.withdrawn": Cause("own_requests", _decided),
}


def _of_request(tx: Transaction, request: Request) -> Mapping[str, object]:
    person = tx.get_one(Person, request.person_id)
    return {
        **_of_person(tx, person),
        "dataset": _dataset(tx, request.dataset_id),
        "role": request.role,
        "lapses_at": at(request.lapses_at),
    }


def _of_person(tx: Transaction, person: Person) -> Mapping[str, object]:
    vendor = tx.get_one(Vendor, person.vendor_id) if person.vendor_id else None
    return {"who": plain(person.name), "vendor": plain(vendor.name) if vendor else ""}


def _of_proposal(tx: Transaction, proposal: Proposal) -> Mapping[str, object]:
    return {
        "who": _name(tx, proposal.proposed_by),
        "act": ACTS.get(proposal.act, plain(proposal.act)),
        "lapses_at": at(proposal.lapses_at),
    }


def _dataset(tx: Transaction, dataset_id: str) -> str:
    return plain(tx.get_one(Dataset, dataset_id).title)


def _name(tx: Transaction, person_id: str) -> str:
    person = tx.get(Person, person_id)
    return plain(person.name) if person is not None else "Somebody"
