"""What an approver needs to see before deciding about a request, gathered once for API and portal alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select

from broker.base import canonical
from broker.base.database import Transaction
from broker.base.errors import Conflict, GuestkeyError, Invalid
from broker.gate.explain import ProposedGrant, Simulation, simulate
from broker.identity.caller import Caller
from broker.identity.permissions import held_by_vendor
from broker.kinds.discovery import serving
from broker.kinds.values import Ending
from broker.models import Dataset, Grant, Lease, Person, Request, Service, Slice, Team, TeamMember, Vendor
from broker.policies import Reason
from broker.registry.approvers import admins_to_decide, why_not
from broker.registry.naming import names_of
from broker.registry.slices import slices_of
from broker.requests.requests import party_of, undecidable, untended
from broker.runtime.parts import Parts

LOOK_BACK = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class HolderFacts:
    """Whoever would hold the grant; `members` counts a team's people, who are named in `people`; else it is 1."""

    kind: str
    id: str
    name: str
    members: int
    people: tuple[str, ...] = ()
    people_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HolderHistory:
    """What was before: of this holder on this dataset, and of the same vendor now."""

    earlier_grants: int
    earlier_refusals: int
    leases_in_90_days: int
    grants_at_vendor: int


@dataclass(frozen=True, slots=True)
class Dossier:
    """Everything shown beside a request, in the order it is shown. `refusal` says why the caller cannot decide.

    `doing`: what the role may do with each of the slices, by name: read, write. `longest_lifetime`: of one credential,
    by the rules, in seconds.

    `conditions` belong to `rules`, one by one. `state` is this very state of affairs, spelled out; an approval that
    quotes the digest of another is refused.
    """

    request: Request
    person: Person
    vendor: Vendor | None
    holder: HolderFacts
    dataset: Dataset
    slices: tuple[Slice, ...]
    doing: Mapping[str, tuple[str, ...]]
    longest_period: int
    longest_lifetime: int | None
    rules: tuple[str, ...]
    conditions: tuple[tuple[tuple[str, Reason | None], ...], ...]
    unmet_now: tuple[Reason, ...]
    lasting: tuple[Reason, ...]
    history: HolderHistory
    endings: dict[str, Ending]
    revision: int | None
    state: str
    refusal: GuestkeyError | None
    owner_suspended: bool
    somebody_may_decide: bool

    @property
    def unmet_beside(self) -> tuple[Reason, ...]:
        """What is not met now beside the rules' conditions; that a slice is still to be named is no fault."""
        known = {reason.code for conditions in self.conditions for _, reason in conditions if reason}
        return tuple(reason for reason in self.unmet_now if reason.code not in known | {"slice_unnamed"})

    @property
    def digest(self) -> str:
        """What names the state of affairs."""
        return digest_of(self.state)


@dataclass(frozen=True, slots=True)
class Change:
    """One fact that is different now: what of it is no more, and what came instead."""

    name: str
    was: Sequence[str]
    now: Sequence[str]


def dossier(parts: Parts, tx: Transaction, caller: Caller, found: Request, now: datetime) -> Dossier:
    """The facts beside a request the caller sees."""
    person = tx.get_one(Person, found.for_id)
    of = tx.get_one(Dataset, found.dataset_id)
    simulation = _simulation(parts, tx, found)
    opened = tuple(
        slice_
        for slice_ in slices_of(tx, [of.id])[of.id]
        if found.slice_name in (None, slice_.name) and any(rule.allows(slice_.name) for rule in simulation.rules)
    )
    vendor = tx.get(Vendor, person.vendor_id) if person.vendor_id else None
    holder = _holder(tx, found, person)
    until_ends = [int((end - now).total_seconds()) for end in (of.retention_until, found.until) if end]
    admins = admins_to_decide(tx, found, now) if untended(tx, [of.id]) else None
    return Dossier(
        request=found,
        person=person,
        vendor=vendor,
        holder=holder,
        dataset=of,
        slices=opened,
        doing={slice_.name: _doing(slice_, simulation) for slice_ in opened},
        longest_period=max(0, min([found.period, *until_ends])),
        longest_lifetime=simulation.longest_lifetime,
        rules=tuple(str(rule) for rule in simulation.rules),
        conditions=simulation.conditions,
        unmet_now=simulation.unmet_now,
        lasting=simulation.lasting,
        history=_history(tx, found, person, now),
        endings={kind.name: kind.ending for slice_ in opened for kind in serving(slice_.kind, "read")},
        revision=simulation.revision,
        state=_state(tx, holder, person, vendor, of, opened, simulation),
        refusal=why_not(tx, caller, found),
        owner_suspended=of.owner_id is not None and tx.get_one(Person, of.owner_id).status != "active",
        somebody_may_decide=not undecidable(tx, [found.id]) if admins is None else bool(admins),
    )


def check_unchanged(parts: Parts, tx: Transaction, caller: Caller, found: Request, seen: str, now: datetime) -> None:
    """Refuse an approval of a state of affairs that is no more.

    Raises:
        Conflict: the digest is another now.
    """
    if dossier(parts, tx, caller, found, now).digest != seen:
        raise Conflict(
            "The facts changed since you opened this request.",
            advice="Check what has changed, and decide again.",
            code="facts_changed",
        )


def digest_of(state: str) -> str:
    """What names a state of affairs, as `Dossier.state` spells it out."""
    return hashlib.sha256(state.encode()).hexdigest()[:32]


def changes(before: str, after: str) -> list[Change]:
    """What differs between two states. `before` may come from a browser: what cannot be read tells nothing."""
    was, now = _shown(before), _shown(after)
    return [
        Change(
            name,
            [line for line in was.get(name, []) if line not in lines],
            [line for line in lines if line not in was.get(name, [])],
        )
        for name, lines in now.items()
        if was and set(was.get(name, [])) != set(lines)
    ]


def _shown(state: str) -> Mapping[str, list[str]]:
    try:
        shown = json.loads(state)["shown"]
        found = {str(name): [str(line) for line in lines] for name, lines in shown.items()}
        canonical.dumps(found)  # half a character cannot be shown
        return found
    except (Invalid, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _simulation(parts: Parts, tx: Transaction, found: Request) -> Simulation:
    party = party_of(tx, found.service_id, found.for_id, found.created_at)
    prospect = ProposedGrant(found.holder, found.role, found.slice_name)
    return simulate(tx, parts.rulebook, party, found.dataset_id, prospect, locking=False)


def _doing(slice_: Slice, simulation: Simulation) -> tuple[str, ...]:
    """What the role may do with a slice, as far as the slice serves it."""
    allowed = {action for rule in simulation.rules if rule.allows(slice_.name) for action in rule.actions}
    return tuple(sorted(allowed & set(slice_.actions)))


def _holder(tx: Transaction, found: Request, person: Person) -> HolderFacts:
    if found.team_id:
        of = tx.get_one(Team, found.team_id)
        query = select(Person).join(TeamMember, TeamMember.person_id == Person.id).where(TeamMember.team_id == of.id)
        people = tx.scalars(query.order_by(Person.name, Person.id)).all()
        names = tuple(member.name or member.email or member.id for member in people)
        return HolderFacts("team", of.id, of.name, len(people), names, tuple(member.id for member in people))
    if found.service_id:
        service = tx.get_one(Service, found.service_id)
        return HolderFacts("service", service.id, service.name, 1)
    return HolderFacts("person", person.id, names_of(tx, [person.id])[person.id], 1)


def _history(tx: Transaction, found: Request, person: Person, now: datetime) -> HolderHistory:
    same = Grant.dataset_id == found.dataset_id
    if found.team_id:
        held = Grant.team_id == found.team_id
    else:
        held = Grant.service_id == found.service_id if found.service_id else Grant.person_id == person.id
    lessee = Lease.service_id == found.service_id if found.service_id else Lease.person_id == person.id
    # The second condition is implied by the first, and has an index.
    for_them = func.coalesce(Request.for_person_id, Request.person_id) == person.id
    by_index = or_(Request.person_id == person.id, Request.for_person_id == person.id)
    about = (Request.dataset_id == found.dataset_id, Request.state == "refused")
    refused = select(func.count()).where(for_them, by_index, *about)
    used = select(func.count()).where(lessee, Lease.dataset_id == found.dataset_id, Lease.created_at > now - LOOK_BACK)
    live = (Grant.revoked_at.is_(None), Grant.ends_at > now)
    at_vendor = select(func.count()).where(same, *live, held_by_vendor(Grant, person.vendor_id))
    return HolderHistory(
        earlier_grants=_count(tx, select(func.count()).where(same, held, Grant.request_id.is_distinct_from(found.id))),
        earlier_refusals=_count(tx, refused),
        leases_in_90_days=_count(tx, used),
        grants_at_vendor=_count(tx, at_vendor) if person.vendor_id else 0,
    )


def _count(tx: Transaction, query: Any) -> int:
    return int(tx.execute(query).scalar_one())


def _state(
    tx: Transaction,
    holder: HolderFacts,
    person: Person,
    vendor: Vendor | None,
    of: Dataset,
    slices: tuple[Slice, ...],
    simulation: Simulation,
) -> str:
    owner = tx.get(Person, of.owner_id) if of.owner_id else None
    kept_until = of.retention_until.astimezone(UTC) if of.retention_until else None
    shown: dict[str, list[str]] = {
        "Person": [person.status],
        "Vendor": [vendor.status] if vendor else [],
        # Its lead may put others into a team until the grant is made.
        "In the team": list(holder.people),
        "Dataset": [of.status],
        "Labels": of.labels,
        "Owner": [owner.name or owner.email or owner.id] if owner else [],
        "Kept until": [f"{kept_until:%d %b %Y, %H:%M} UTC"] if kept_until else [],
        "Slices": [
            f"{slice_.name} ({' and '.join(_doing(slice_, simulation)) or 'nothing'}), {slice_.state}:"
            f" {_said(slice_.binding)}"
            for slice_ in slices
        ],
        "Rules": [str(rule) for rule in simulation.rules],
        "Reasons against": [reason.sentence for reason in simulation.lasting],
    }
    # Two states may read alike; they are told apart by these.
    exact = [
        person.id,
        list(holder.people_ids),
        vendor.id if vendor else None,
        of.id,
        of.owner_id,
        kept_until.isoformat() if kept_until else None,
    ]
    return canonical.dumps({"shown": shown, "exact": [*exact, [[item.id, item.binding] for item in slices]]}).decode()


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_said(value[name])}" for name in sorted(value))
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
    return str(value)
