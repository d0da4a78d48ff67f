"""What is held: grants and leases, looked at and given up. Issuing is `broker.leases.issuing`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, Select, func, select

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Forbidden
from broker.base.ids import is_id
from broker.base.paging import Page, Window, matching, page
from broker.identity.caller import Caller
from broker.identity.permissions import grants_seen, is_lead, leases_seen, looked_after, missing
from broker.kinds.names import lease_of
from broker.models import LIVE_STATES, Dataset, Grant, Lease, Person, Service, Team
from broker.registry.naming import names_of, person_meant
from broker.revocation import ending

MOST_LIVE = 200
GrantState = Literal["current", "ended"]


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; None leaves it wide. `dataset` is a slug or an id."""

    dataset: str | None = None
    person: str | None = None
    state: str | None = None


def with_ids(tx: Transaction, caller: Caller, filters: Filters) -> Filters:
    """The same filters with a person's id where a name or an e-mail was typed.

    Raises:
        Invalid: nobody that the caller sees is called so, or several people are.
    """
    return replace(filters, person=person_meant(tx, caller, filters.person or "", "query/person"))


def list_grants(tx: Transaction, caller: Caller, window: Window, filters: Filters) -> Page[Grant]:
    """The grants the caller sees, whoever holds them; `state` is `current` or `ended`."""
    query = select(Grant).where(grants_seen(caller), *matching((Grant.person_id, filters.person)))
    if filters.dataset is not None:
        query = query.where(Grant.dataset_id.in_(_named(filters.dataset)))
    if filters.state is not None:
        query = query.where(_current() if filters.state == "current" else ~_current())
    return page(tx, query, Grant.id, window)


def grant(tx: Transaction, caller: Caller, grant_id: str) -> Grant:
    """One grant.

    Raises:
        NotFound: there is none of that id that the caller may see.
    """
    found = None
    if is_id(grant_id):
        found = tx.scalars(select(Grant).where(Grant.id == grant_id, grants_seen(caller))).one_or_none()
    if found is None:
        raise missing("grant")
    return found


def revoke_grant(tx: Transaction, caller: Caller, grant_id: str, reason: str, now: datetime) -> list[str]:
    """End a grant; returns the ids of the leases now ending.

    Raises:
        Forbidden: it is not the caller's to end.
        Conflict: it has ended already.
    """
    found = grant(tx, caller, grant_id)
    alone = caller.id in (found.person_id, found.service_id)
    if not (alone or _may_end(tx, caller, found.dataset_id, _vendor_of_grant(tx, found))):
        raise Forbidden("Only the holder, the dataset's owner or stewards, the vendor's lead and admins end a grant.")
    return ending.revoke_grant(tx, found.id, caller, words.prose(reason, "/reason"), now)


def list_leases(tx: Transaction, caller: Caller, window: Window, filters: Filters) -> Page[Lease]:
    """The leases the caller sees; the state `live` stands for every state before the end."""
    query = select(Lease).where(leases_seen(caller), *matching((Lease.person_id, filters.person)))
    if filters.dataset is not None:
        query = query.where(Lease.dataset_id.in_(_named(filters.dataset)))
    if filters.state == "live":
        query = query.where(Lease.state.in_(LIVE_STATES))
    elif filters.state is not None:
        query = query.where(Lease.state == filters.state)
    return page(tx, query, Lease.id, window)


def live_leases(tx: Transaction, caller: Caller, filters: Filters, *, kind: str | None = None) -> list[Lease]:
    """What is live: what could not be ended first, then what ends soonest. At most 200."""
    query = select(Lease).where(
        leases_seen(caller),
        Lease.state.in_(LIVE_STATES),
        *matching((Lease.person_id, filters.person), (Lease.kind, kind)),
    )
    if filters.dataset is not None:
        query = query.where(Lease.dataset_id.in_(_named(filters.dataset)))
    return list(tx.scalars(query.order_by(Lease.state != "revoke_failed", Lease.expires_at).limit(MOST_LIVE)))


def lease(tx: Transaction, caller: Caller, lease_id: str) -> Lease:
    """One lease, by its id or the name it has at its backend.

    Raises:
        NotFound: there is none of that id that the caller may see.
    """
    found, lease_id = None, lease_of(lease_id)
    if is_id(lease_id):
        found = tx.scalars(select(Lease).where(Lease.id == lease_id, leases_seen(caller))).one_or_none()
    if found is None:
        raise missing("lease")
    return found


def revoke_lease(tx: Transaction, caller: Caller, lease_id: str, reason: str, now: datetime) -> Lease:
    """Ask for the end of a lease; the worker does it at once. Twice is fine.

    Raises:
        Forbidden: it is not the caller's to end.
    """
    found = lease(tx, caller, lease_id)
    alone = caller.id in (found.person_id, found.service_id)
    if not (alone or _may_end(tx, caller, found.dataset_id, _vendor_of_lease(tx, found))):
        raise Forbidden("Only the holder, the dataset's owner or stewards, the vendor's lead and admins end a lease.")
    reason = words.prose(reason, "/reason", needed=False)
    ending.revoke_lease(tx, found, caller, reason, now)
    tx.refresh(found)
    return found


def may_end(tx: Transaction, caller: Caller, found: Grant | Lease) -> bool:
    """Whether the caller may end this grant or lease, so that a page shows the button."""
    if caller.id in (found.person_id, found.service_id):
        return True
    vendor_id = _vendor_of_grant(tx, found) if isinstance(found, Grant) else _vendor_of_lease(tx, found)
    return _may_end(tx, caller, found.dataset_id, vendor_id)


def holder_names(tx: Transaction, found: list[Grant]) -> dict[str, str]:
    """The name of each grant's holder, by grant id."""
    people = names_of(tx, [grant.person_id for grant in found if grant.person_id])
    teams = _names(tx, Team, [grant.team_id for grant in found if grant.team_id])
    services = _names(tx, Service, [grant.service_id for grant in found if grant.service_id])
    known = people | teams | services
    return {grant.id: known.get(grant.person_id or grant.team_id or grant.service_id or "", "") for grant in found}


def _may_end(tx: Transaction, caller: Caller, dataset_id: str, vendor_id: str | None) -> bool:
    if caller.is_admin or is_lead(caller, vendor_id):
        return True
    return tx.execute(looked_after(caller).where(Dataset.id == dataset_id)).first() is not None


def _vendor_of_grant(tx: Transaction, found: Grant) -> str | None:
    if found.team_id:
        return tx.get_one(Team, found.team_id).vendor_id
    if found.service_id:
        return tx.get_one(Service, found.service_id).vendor_id
    return tx.get_one(Person, found.person_id).vendor_id


def _vendor_of_lease(tx: Transaction, found: Lease) -> str | None:
    if found.service_id:
        return tx.get_one(Service, found.service_id).vendor_id
    return tx.get_one(Person, found.person_id).vendor_id


def _named(dataset: str) -> Select[str]:
    return select(Dataset.id).where((Dataset.slug == dataset) | (Dataset.id == dataset))


def _current() -> ColumnElement[bool]:
    return Grant.revoked_at.is_(None) & (Grant.ends_at > func.clock_timestamp())


def _names(tx: Transaction, record: type[Person] | type[Team] | type[Service], ids: list[str]) -> dict[str, str]:
    if not ids:
        return {}
    return dict(tx.execute(select(record.id, record.name).where(record.id.in_(ids))).all())
