"""What a suspension ends, or stops from being used: counted before it, and at its moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, false, func, or_, select, true

from broker.base.database import Transaction
from broker.identity.permissions import held_by_vendor
from broker.models import ApiToken, Grant, Lease, Person, Request, Service, Session

What = Literal["vendor", "person", "dataset", "installation"]
INSTALLATION: Final = "installation"
_LIVE = ("pending", "active")


@dataclass(frozen=True, slots=True)
class Target:
    """What is suspended. `key` names it in addresses: a dataset's slug, else its id; the installation is everything."""

    what: What
    id: str
    key: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a suspension ends, or stops from being used. `leases` is by kind."""

    people: int
    services: int
    sessions: int
    tokens: int
    grants: int
    requests: int
    leases: Mapping[str, int]

    @property
    def all_leases(self) -> int:
        """Leases of every kind."""
        return sum(self.leases.values())


def count(tx: Transaction, target: Target) -> Counts:
    """What suspending the target now ends, or stops from being used."""

    def number(query: Select[Any]) -> int:
        return tx.execute(select(func.count()).select_from(query.subquery())).scalar_one()

    staff, services = _members(target)
    sessions = select(Session.id).where(Session.person_id.in_(staff), Session.ended_at.is_(None))
    of_either = or_(ApiToken.person_id.in_(staff), ApiToken.service_id.in_(services))
    tokens = select(ApiToken.id).where(of_either, ApiToken.ended_at.is_(None))
    grants = select(Grant.id).where(_about(Grant, target), Grant.revoked_at.is_(None), Grant.ends_at > func.now())
    # Whoever uses a dataset stays signed in.
    signs_out = target.what != "dataset"
    return Counts(
        people=number(staff),
        services=number(services),
        sessions=number(sessions) if signs_out else 0,
        tokens=number(tokens) if signs_out else 0,
        grants=number(grants),
        requests=number(select(Request.id).where(_about(Request, target), Request.state == "pending")),
        leases=dict(sorted(_by_kind(tx, target, func.count()).items())),
    )


def latest(tx: Transaction, target: Target) -> dict[str, datetime]:
    """By kind, when the last of the live credentials expires by itself."""
    return _by_kind(tx, target, func.max(Lease.expires_at))


def _by_kind(tx: Transaction, target: Target, figure: ColumnElement[Any]) -> dict[str, Any]:
    """One figure of the live leases of each kind."""
    query = select(Lease.kind, figure).where(_about(Lease, target), Lease.state.in_(_LIVE))
    return dict(tx.execute(query.group_by(Lease.kind)).all())


def _members(target: Target) -> tuple[Select[Any], Select[Any]]:
    """The people and services it is about; of a dataset the people who use it."""
    people, services = select(Person.id), select(Service.id)
    if target.what == "dataset":
        live = (_about(Lease, target), Lease.state.in_(_LIVE), Lease.person_id.is_not(None))
        return select(Lease.person_id).where(*live).distinct(), services.where(false())
    if target.what == "person":
        return people.where(Person.id == target.id), services.where(false())
    people, services = people.where(Person.status != "suspended"), services.where(Service.status == "active")
    if target.what == INSTALLATION:
        return people, services
    return people.where(Person.vendor_id == target.id), services.where(Service.vendor_id == target.id)


def _about(record: type[Lease] | type[Grant] | type[Request], target: Target) -> ColumnElement[bool]:
    """Whether a lease, grant or request is one that the target's suspension ends, or keeps from being used."""
    if target.what == INSTALLATION:
        return true()
    if target.what == "dataset":
        return record.dataset_id == target.id
    if target.what == "person":
        return record.person_id == target.id
    if issubclass(record, Request):
        return Request.person_id.in_(select(Person.id).where(Person.vendor_id == target.id))
    return held_by_vendor(record, target.id)
