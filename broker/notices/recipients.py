"""Who is told: admins, approvers, holders and leads, as the records say at this moment. Ids only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_, select

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.identity.permissions import stewards_of
from broker.models import Dataset, Grant, Person, Request, RoleHeld, Service, Team, TeamMember
from broker.registry.approvers import barred, why_not


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
    tending = set(tx.scalars(select(Person.id).where(Person.id.in_(named), Person.status == "active")))
    admins = with_role(tx, "admin", now=now)
    if not tending:
        own = barred(tx, request)
        return [admin for admin in admins if admin not in own] or admins
    people = tx.scalars(select(Person).where(Person.id.in_(tending), Person.status == "active"))
    may = [person.id for person in people if why_not(tx, Caller.not_asking(person, now), request) is None]
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
    if grant.team_id is not None:
        vendor_id: str | None = tx.get_one(Team, grant.team_id).vendor_id
    else:
        vendor_id = tx.get_one(Person, grant.person_id).vendor_id
    return with_role(tx, "lead", now=now, vendor_id=vendor_id) if vendor_id is not None else []
