"""What a suspension ends, or stops from being used: counted before it, and at its moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast

from sqlalchemy import ColumnElement, Select, func, or_, select, true

from broker.base.database import Transaction
from broker.models import ApiToken, Grant, Lease, Person, Request, Service, Session, Team

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
    staff, services = _members(target)
    of_staff = _in(staff)

    def number(query: Select[Any]) -> int:
        return tx.execute(select(func.count()).select_from(query.subquery())).scalar_one()

    signed_in = target.what != "dataset"
    by_kind = tx.execute(
        select(Lease.kind, func.count()).where(_leases(target), Lease.state.in_(_LIVE)).group_by(Lease.kind)
    ).all()
    return Counts(
        people=number(staff) if signed_in else number(select(Lease.person_id).where(_live(target)).distinct()),
        services=number(services) if signed_in else 0,
        sessions=number(select(Session.id).where(of_staff(Session.person_id), Session.ended_at.is_(None)))
        if signed_in
        else 0,
        tokens=number(
            select(ApiToken.id).where(
                or_(of_staff(ApiToken.person_id), ApiToken.service_id.in_(services)), ApiToken.ended_at.is_(None)
            )
        )
        if signed_in
        else 0,
        grants=number(select(Grant.id).where(_grants(target), Grant.revoked_at.is_(None), Grant.ends_at > func.now())),
        requests=number(select(Request.id).where(_requests(target), Request.state == "pending")),
        leases=dict(sorted((kind, count) for kind, count in by_kind)),
    )


def latest(tx: Transaction, target: Target) -> dict[str, datetime]:
    """By kind, when the last of the live credentials expires by itself."""
    live = select(Lease.kind, func.max(Lease.expires_at)).where(_leases(target), Lease.state.in_(_LIVE))
    return dict(tx.execute(live.group_by(Lease.kind)).all())


def _members(target: Target) -> tuple[Select[str], Select[str]]:
    """The people and services it is about."""
    if target.what == INSTALLATION:
        return (
            select(Person.id).where(Person.status != "suspended"),
            select(Service.id).where(Service.status == "active"),
        )
    if target.what == "person":
        return select(Person.id).where(Person.id == target.id), select(Service.id).where(Service.id == "")
    return (
        select(Person.id).where(Person.vendor_id == target.id, Person.status != "suspended"),
        select(Service.id).where(Service.vendor_id == target.id, Service.status == "active"),
    )


def _in(ids: Select[str]) -> Callable[[Any], ColumnElement[bool]]:
    return lambda column: cast("ColumnElement[bool]", column.in_(ids))


def _live(target: Target) -> ColumnElement[bool]:
    return _leases(target) & Lease.state.in_(_LIVE) & Lease.person_id.is_not(None)


def _leases(target: Target) -> ColumnElement[bool]:
    if target.what == INSTALLATION:
        return true()
    if target.what == "dataset":
        return Lease.dataset_id == target.id
    if target.what == "person":
        return Lease.person_id == target.id
    return Lease.person_id.in_(_of(Person, target)) | Lease.service_id.in_(_of(Service, target))


def _grants(target: Target) -> ColumnElement[bool]:
    if target.what == INSTALLATION:
        return true()
    if target.what == "dataset":
        return Grant.dataset_id == target.id
    if target.what == "person":
        return Grant.person_id == target.id
    return (
        Grant.person_id.in_(_of(Person, target))
        | Grant.team_id.in_(_of(Team, target))
        | Grant.service_id.in_(_of(Service, target))
    )


def _requests(target: Target) -> ColumnElement[bool]:
    if target.what == INSTALLATION:
        return true()
    if target.what == "dataset":
        return Request.dataset_id == target.id
    if target.what == "person":
        return Request.person_id == target.id
    return Request.person_id.in_(_of(Person, target))


def _of(record: type[Person] | type[Team] | type[Service], target: Target) -> Select[str]:
    return select(record.id).where(record.vendor_id == target.id)
