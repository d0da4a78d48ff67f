"""Who could reach what at a moment in the past, who did, and under which rules. For admins and auditors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select

from broker.base.database import Transaction
from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.identity.caller import Caller
from broker.identity.permissions import held_by_vendor, require_reader
from broker.models import Dataset, Grant, Lease, Person, PolicyRevision, Service, Suspension, Team, TeamMember
from broker.registry.naming import names_of

MOST = 500


@dataclass(frozen=True, slots=True)
class About:
    """Whom or what it is asked about: at least one. `dataset` is a slug or an id."""

    dataset: str | None = None
    person: str | None = None
    vendor: str | None = None


@dataclass(frozen=True, slots=True)
class GrantThen:
    """A grant that covered the moment. `suspended`: its holder, their vendor or the dataset was shut out then."""

    grant: str
    dataset: str
    role: str
    slice: str | None
    holder: str
    holder_name: str
    purpose: str
    starts_at: datetime
    ends_at: datetime
    suspended: bool


@dataclass(frozen=True, slots=True)
class LeaseThen:
    """A lease that was live at the moment."""

    lease: str
    kind: str
    dataset: str
    holder: str
    grant: str
    rule: str
    policy_revision: int
    issued_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class AccessAt:
    """The answer; `revision` is of the rules then in force. `cut`: there is more than is shown."""

    at: datetime
    revision: int | None
    could: Sequence[GrantThen]
    did: Sequence[LeaseThen]
    cut: bool


def access_at(tx: Transaction, caller: Caller, at: datetime, about: About) -> AccessAt:
    """Who could, who did, by which rules.

    A team's grant is shown as the team's: who was in it then, its events tell.

    Raises:
        Forbidden: the caller is neither admin nor auditor.
        Invalid: nothing is named.
    """
    require_reader(caller)
    if about == About():
        raise Invalid("Name a dataset, a person or a vendor.", field="/query/dataset")
    revision = tx.execute(
        select(PolicyRevision.number)
        .where(PolicyRevision.applied_at <= at)
        .order_by(PolicyRevision.number.desc())
        .limit(1)
    ).scalar_one_or_none()
    could, did = _could(tx, at, about), _did(tx, at, about)
    return AccessAt(at, revision, could, did, len(could) == MOST or len(did) == MOST)


def _could(tx: Transaction, at: datetime, about: About) -> list[GrantThen]:
    # A grant counts from when it was made, not from the day it was made out for.
    holds = (
        (Grant.created_at <= at)
        & (Grant.starts_at <= at)
        & (Grant.ends_at > at)
        & or_(Grant.revoked_at.is_(None), Grant.revoked_at > at)
    )
    rows = tx.execute(
        select(Grant, Dataset.slug)
        .join(Dataset, Dataset.id == Grant.dataset_id)
        .where(holds, *_about(Grant, about))
        .order_by(Grant.id)
        .limit(MOST)
    ).all()
    grants = [grant for grant, _ in rows]
    names, shut = names_of(tx, [grant.holder_id for grant in grants]), _suspended(tx, at)
    vendors = _vendors_of(tx, grants)
    return [
        GrantThen(
            grant=grant.id,
            dataset=slug,
            role=grant.role,
            slice=grant.slice_name,
            holder=grant.holder,
            holder_name=names.get(grant.holder_id, ""),
            purpose=grant.purpose,
            starts_at=grant.starts_at,
            ends_at=min(grant.ends_at, grant.revoked_at or grant.ends_at),
            suspended=not shut.isdisjoint({grant.dataset_id, grant.person_id, vendors.get(grant.id)}),
        )
        for grant, slug in rows
    ]


def _did(tx: Transaction, at: datetime, about: About) -> list[LeaseThen]:
    over = func.coalesce(Lease.ended_at, Lease.expires_at)
    rows = tx.execute(
        select(Lease, Dataset.slug, over)
        .join(Dataset, Dataset.id == Lease.dataset_id)
        .where(Lease.activated_at.is_not(None), Lease.created_at <= at, over > at, *_about(Lease, about))
        .order_by(Lease.id)
        .limit(MOST)
    ).all()
    return [
        LeaseThen(
            lease=lease.id,
            kind=lease.kind,
            dataset=slug,
            holder=lease.holder,
            grant=lease.grant_id,
            rule=lease.rule,
            policy_revision=lease.policy_revision,
            issued_at=lease.created_at,
            ended_at=ended_at,
        )
        for lease, slug, ended_at in rows
    ]


def _about(record: type[Grant] | type[Lease], about: About) -> list[ColumnElement[bool]]:
    given = []
    if about.dataset is not None:
        given.append(Dataset.id == about.dataset if is_id(about.dataset) else Dataset.slug == about.dataset)
    if about.person is not None:
        teams = select(TeamMember.team_id).where(TeamMember.person_id == about.person)
        own = record.person_id == about.person
        given.append(own | Grant.team_id.in_(teams) if record is Grant else own)
    if about.vendor is not None:
        given.append(held_by_vendor(record, about.vendor))
    return given


def _suspended(tx: Transaction, at: datetime) -> set[str | None]:
    """What was shut out at the moment."""
    then = (Suspension.started_at <= at) & or_(Suspension.resumed_at.is_(None), Suspension.resumed_at > at)
    return set(tx.scalars(select(Suspension.target_id).where(then)))


def _vendors_of(tx: Transaction, grants: Sequence[Grant]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for record, column in ((Person, Grant.person_id), (Team, Grant.team_id), (Service, Grant.service_id)):
        rows = tx.execute(
            select(Grant.id, record.vendor_id)
            .join(record, record.id == column)
            .where(Grant.id.in_([grant.id for grant in grants]))
        )
        found |= dict(rows.all())
    return found
