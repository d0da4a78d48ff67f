"""How grants and leases look in responses. No decisions here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.gate.facts import Ask
from broker.identity.caller import Caller
from broker.kinds.discovery import kinds
from broker.leases.holdings import holder_names, may_end
from broker.models import Dataset, Grant, Lease, Person, Service, Slice
from broker.registry.naming import names_of
from broker.web.api.kinds import EndingShown
from broker.web.validation import Shown, Strict

# What no name is made of is kept out of the log, too, which shows for ever what was asked for.
_PRINTED = r"^[!-~]+$"


class GrantShown(Shown):
    """A grant: a right, not a secret. `holder` is prefixed; `max_lifetime` is in seconds."""

    id: str
    state: Literal["coming", "current", "ended", "revoked"]
    dataset: str
    role: str
    slice: str | None
    holder: str
    holder_name: str
    purpose: str
    starts_at: datetime
    ends_at: datetime
    max_lifetime: int | None
    revoked_at: datetime | None
    revoke_reason: str
    request: str | None


class LeaseShown(Shown):
    """A lease: the record of one credential, never the secret. `ending` says how its kind ends.

    `exposed_until`: its backend said that it cannot end the credential sooner.
    """

    id: str
    state: str
    kind: str
    dataset: str
    slice: str
    action: str
    holder: str
    holder_name: str
    grant: str
    handle: str
    rule: str
    policy_revision: int
    decision_id: str
    created_at: datetime
    activated_at: datetime | None
    expires_at: datetime
    ending_since: datetime | None
    end_cause: str | None
    ended_at: datetime | None
    confirmed_by: str
    attempts: int
    next_attempt_at: datetime | None
    exposed_until: datetime | None
    ending: EndingShown | None


class LeaseFull(LeaseShown):
    """One lease, and whether the reader may end it."""

    may_revoke: bool


class LeaseBody(Strict):
    """What credential is wanted. `lifetime` is in seconds; left out, as the rule allows, 15 minutes at most.

    `kind` left out is the slice's own. `public_key` is for kinds with a `proof` (see `/kinds`), which says what to
    make; its private half never comes here.
    """

    dataset: Annotated[str, Field(max_length=64, pattern=_PRINTED)]
    action: Literal["read", "write"] = "read"
    slice: Annotated[str, Field(max_length=32, pattern=_PRINTED)] | None = None
    kind: Annotated[str, Field(max_length=32, pattern=_PRINTED)] | None = None
    lifetime: Annotated[int, Field(ge=1, le=86400)] | None = None
    public_key: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"dataset": "trials", "slice": "deidentified"}]})

    def ask(self) -> Ask:
        """As the gate takes it."""
        return Ask(self.dataset, self.action, self.slice, self.kind, self.lifetime, self.public_key)


class Issued(BaseModel):
    """The lease and, this once, the credential. A repeat answers the same lease without it."""

    lease: LeaseShown
    credential: dict[str, str] | None
    secret_available: bool


def grants_shown(tx: Transaction, items: Sequence[Grant]) -> list[GrantShown]:
    """Grants, with the names they refer to."""
    now = clock(tx)
    slugs = _slugs(tx, {item.dataset_id for item in items})
    names = holder_names(tx, items)
    return [
        GrantShown(
            id=item.id,
            state=_grant_state(item, now),
            dataset=slugs[item.dataset_id],
            role=item.role,
            slice=item.slice_name,
            holder=_holder(item),
            holder_name=names[item.id],
            purpose=item.purpose,
            starts_at=item.starts_at,
            ends_at=item.ends_at,
            max_lifetime=item.max_lifetime,
            revoked_at=item.revoked_at,
            revoke_reason=item.revoke_reason,
            request=item.request_id,
        )
        for item in items
    ]


def leases_shown(tx: Transaction, items: Sequence[Lease]) -> list[LeaseShown]:
    """Leases, with the names they refer to."""
    slugs = _slugs(tx, {item.dataset_id for item in items})
    slices = dict(_pairs(tx, Slice, {item.slice_id for item in items}))
    people = names_of(tx, {item.person_id for item in items if item.person_id})
    services = dict(_pairs(tx, Service, {item.service_id for item in items if item.service_id}))
    names = people | services
    return [_lease(item, slugs, slices, names) for item in items]


def lease_full(tx: Transaction, caller: Caller, item: Lease) -> LeaseFull:
    """One lease."""
    shown = leases_shown(tx, [item])[0]
    return LeaseFull(**shown.model_dump(), may_revoke=may_end(tx, caller, item))


def _lease(item: Lease, slugs: Mapping[str, str], slices: Mapping[str, str], names: Mapping[str, str]) -> LeaseShown:
    kind = kinds.get(item.kind)
    return LeaseShown(
        id=item.id,
        state=item.state,
        kind=item.kind,
        dataset=slugs[item.dataset_id],
        slice=slices[item.slice_id],
        action=item.action,
        holder=_holder(item),
        holder_name=names.get(item.person_id or item.service_id or "", ""),
        grant=item.grant_id,
        handle=item.handle,
        rule=item.rule,
        policy_revision=item.policy_revision,
        decision_id=item.decision_id,
        created_at=item.created_at,
        activated_at=item.activated_at,
        expires_at=item.expires_at,
        ending_since=item.ending_since,
        end_cause=item.end_cause,
        ended_at=item.ended_at,
        confirmed_by=item.confirmed_by,
        attempts=item.attempts,
        next_attempt_at=item.next_attempt_at,
        exposed_until=item.exposed_until,
        ending=EndingShown.model_validate(kind.ending) if kind else None,
    )


def _grant_state(item: Grant, now: datetime) -> Literal["coming", "current", "ended", "revoked"]:
    if item.revoked_at is not None:
        return "revoked"
    if item.starts_at > now:
        return "coming"
    return "current" if item.ends_at > now else "ended"


def _holder(item: Grant | Lease) -> str:
    if item.person_id:
        return f"person:{item.person_id}"
    if item.service_id:
        return f"service:{item.service_id}"
    return f"team:{item.team_id}" if isinstance(item, Grant) else ""


def _slugs(tx: Transaction, ids: set[str]) -> dict[str, str]:
    return dict(tx.execute(select(Dataset.id, Dataset.slug).where(Dataset.id.in_(ids))).all())


def _pairs(tx: Transaction, record: type[Slice] | type[Person] | type[Service], ids: set[str]) -> list[tuple[str, str]]:
    return list(tx.execute(select(record.id, record.name).where(record.id.in_(ids))).all()) if ids else []
