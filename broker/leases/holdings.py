"""What is held: grants and leases, looked at and given up. Issuing is `broker.leases.issuing`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import ColumnElement, Select, String, func, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Forbidden
from broker.base.paging import Window, matching
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Menu, Noun, Search
from broker.identity.permissions import grants_seen, is_lead, leases_seen, looked_after
from broker.kinds.names import lease_of
from broker.models import LIVE_STATES, Dataset, Grant, Lease, Person, Service, Slice, Team, TeamMember
from broker.registry.naming import held_by, party, person_filter
from broker.revocation import ending

MOST_LIVE = 200
_MAY_END = "Only the holder, the dataset's owner or stewards, the vendor's lead and admins can end"
Text = Annotated[str, Field(max_length=64)]


def _of_dataset(column: InstrumentedAttribute[str]) -> Filter:
    return Filter("dataset", Text, lambda _, __, named: column.in_(_named(named)), "A dataset's short name or id.")


def _current() -> ColumnElement[bool]:
    return Grant.revoked_at.is_(None) & (Grant.ends_at > func.clock_timestamp())


GRANTS = Noun(
    "grant",
    "grants",
    "gr",
    Grant,
    about="Approved roles, from-until.",
    menu=Menu("Grants", lambda caller: caller.vendor_id is None),
    display=Display(
        columns="id!, dataset!, role, holder=holder_name, state, ends=ends_at@",
        none="No grant. Next: guestkey request new DATASET --role ROLE --purpose WHY",
        details=(
            "id, dataset, role, holder=holder_name, holder id=holder, slice, state, longest "
            "lifetime=max_lifetime#, purpose, starts=starts_at@, ends=ends_at@, revoked=revoked_at@, "
            "reason=revoke_reason"
        ),
    ),
    seen=grants_seen,
    called=held_by(Grant, type_coerce(Grant.person_id, String)),
    filters=(
        person_filter(Grant.person_id),
        _of_dataset(Grant.dataset_id),
        Filter(
            "state", Literal["current", "ended"], lambda _, __, state: _current() if state == "current" else ~_current()
        ),
    ),
    search=Search((), lambda found: (found.id, found.id, "")),
    plain=("revoked",),
    events={
        "grant.confirmed": "{who} confirmed the grant {whom} after a restore.",
        "grant.made": "{who} granted {whom}.",
    },
)
LEASES = Noun(
    "lease",
    "leases",
    "lease",
    Lease,
    about="Credentials: issuing, showing, ending.",
    menu=Menu("Leases"),
    display=Display(
        columns="id!, state, kind, dataset!, slice, expires=expires_at@",
        none="No leases. Next: guestkey connect DATASET",
        details=(
            "id, state, kind, handle, dataset, slice, action, holder=holder_name, issued=created_at@, "
            "expires=expires_at@, ended=ended_at@, cause=end_cause, confirmed by=confirmed_by, how it "
            "ends=ending.how, worst exposure=ending.worst_case#, exposed until=exposed_until@, attempts, next "
            "attempt=next_attempt_at@"
        ),
    ),
    seen=leases_seen,
    called=select(Lease.id, Dataset.slug + ", " + Slice.name + ", of " + party(Service.name, "?"))
    .join(Dataset, Dataset.id == Lease.dataset_id)
    .join(Slice, Slice.id == Lease.slice_id)
    .outerjoin(Person, Person.id == Lease.person_id)
    .outerjoin(Service, Service.id == Lease.service_id),
    filters=(
        Filter(
            "state",
            Literal["pending", "active", "revoking", "revoked", "expired", "revoke_failed", "live"],
            lambda _, __, state: Lease.state.in_(LIVE_STATES) if state == "live" else Lease.state == state,
            "`live`: any state before the end.",
        ),
        _of_dataset(Lease.dataset_id),
        person_filter(Lease.person_id),
    ),
    search=Search((), lambda found: (found.id, found.id, "")),
    plain=("renewed",),
    events={
        "lease.disqualified": "{who} ended the lease {whom}: it no longer qualified.",
        "lease.ending": "{who} began to end the lease {whom} ({cause}).",
        "lease.expired": "{who} saw the lease {whom} expire; the backend confirmed that the credential is gone.",
        "lease.issued": "{who} received the credential of the lease {whom}.",
        "lease.not_renewed": "{who} could not renew the lease {whom}; it ends as planned.",
        "lease.revocation_asked": "{who} asked to revoke the lease {whom}.",
        "lease.exposed": "{who} cannot end the lease {whom} sooner than its backend allows; it is checked again then.",
        "lease.revoke_failed": "{who} could not confirm the end of the lease {whom}; it tries again.",
        "lease.revoked": "{who} revoked the lease {whom}; the backend confirmed that the credential is gone.",
        "lease.shortened": "{who} shortened the lease {whom} to what its grant and the rules allow now.",
        "lease.stray_ended": "{who} found a credential without a record, {whom}, and ended it.",
        "lease.used": "{who} used the credential of the lease {whom}.",
        "lease.vanished": "{who} found the credential of the lease {whom} gone from its backend and ended the lease.",
    },
)
grant = GRANTS.one


def own_grants(tx: Transaction, caller: Caller) -> list[Grant]:
    """The current grants the caller holds, alone or through a team."""
    found = GRANTS.page(tx, caller, Window(limit=100), state="current").items
    teams = set(tx.scalars(select(TeamMember.team_id).where(TeamMember.person_id == caller.id)))
    return [item for item in found if item.person_id == caller.id or item.team_id in teams]


def may_use(caller: Caller, found: Grant) -> bool:
    """Whether a credential from a current grant would be the caller's own; a team's is shown to its members only."""
    return found.person_id == caller.id or found.team_id is not None


def live_until(tx: Transaction, lease_id: str, kind: str, now: datetime) -> datetime | None:
    """Until when a lease of this kind is active; None if it is not now."""
    live = (Lease.kind == kind, Lease.state == "active", Lease.expires_at > now)
    return tx.execute(select(Lease.expires_at).where(Lease.id == lease_id, *live)).scalar_one_or_none()


def count_live(tx: Transaction) -> dict[str, int]:
    """How many leases there are in each state before the end: over a partial index, ended ones cost nothing."""
    query = select(Lease.state, func.count()).where(Lease.state.in_(LIVE_STATES)).group_by(Lease.state)
    return dict(tx.execute(query).all())


def revoke_grant(tx: Transaction, caller: Caller, grant_id: str, reason: str, now: datetime) -> list[str]:
    """End a grant; returns the ids of the leases now ending.

    Raises:
        Forbidden: it is not the caller's to end.
        Conflict: it has ended already.
    """
    found = grant(tx, caller, grant_id)
    if not may_end(tx, caller, found):
        raise Forbidden(f"{_MAY_END} a grant.")
    return ending.revoke_grant(tx, found.id, caller, words.prose(reason, "/reason"), now)


def live_leases(
    tx: Transaction, caller: Caller, *, dataset: str | None = None, person: str | None = None, kind: str | None = None
) -> list[Lease]:
    """What is live: what could not be ended first, then what ends soonest. At most 200."""
    query = LEASES.query(tx, caller).where(
        Lease.state.in_(LIVE_STATES), *matching((Lease.person_id, person), (Lease.kind, kind))
    )
    if dataset is not None:
        query = query.where(Lease.dataset_id.in_(_named(dataset)))
    return list(tx.scalars(query.order_by(Lease.state != "revoke_failed", Lease.expires_at).limit(MOST_LIVE)))


def lease(tx: Transaction, caller: Caller, lease_id: str) -> Lease:
    """One lease, by its id or the name it has at its backend.

    Raises:
        NotFound: there is none of that id that the caller may see.
    """
    return LEASES.one(tx, caller, lease_of(lease_id))


def revoke_lease(tx: Transaction, caller: Caller, lease_id: str, reason: str, now: datetime) -> Lease:
    """Ask for the end of a lease; the worker does it at once. Twice is fine.

    Raises:
        Forbidden: it is not the caller's to end.
    """
    found = lease(tx, caller, lease_id)
    if not may_end(tx, caller, found):
        raise Forbidden(f"{_MAY_END} a lease.")
    ending.revoke_lease(tx, found, caller, words.prose(reason, "/reason", needed=False), now)
    tx.refresh(found)
    return found


def may_end(tx: Transaction, caller: Caller, found: Grant | Lease) -> bool:
    """Whether the caller may end this grant or lease; a page shows the button then."""
    if caller.is_admin or caller.id in (found.person_id, found.service_id) or is_lead(caller, _vendor_of(tx, found)):
        return True
    return tx.execute(looked_after(caller).where(Dataset.id == found.dataset_id)).first() is not None


def _vendor_of(tx: Transaction, found: Grant | Lease) -> str | None:
    if isinstance(found, Grant) and found.team_id:
        return tx.get_one(Team, found.team_id).vendor_id
    if found.service_id:
        return tx.get_one(Service, found.service_id).vendor_id
    return tx.get_one(Person, found.person_id).vendor_id


def _named(dataset: str) -> Select[str]:
    return select(Dataset.id).where((Dataset.slug == dataset) | (Dataset.id == dataset))
