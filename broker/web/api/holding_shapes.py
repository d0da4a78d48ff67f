"""How grants and leases look in responses. No decisions here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.gate.facts import Ask
from broker.identity.caller import Caller
from broker.kinds.discovery import kinds
from broker.leases.holdings import may_end
from broker.models import Grant, Lease
from broker.registry.naming import names_of
from broker.registry.slices import slice_names
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
    slice: Annotated[str | None, Field(validation_alias="slice_name")]
    holder: str
    holder_name: str
    purpose: str
    starts_at: datetime
    ends_at: datetime
    max_lifetime: int | None
    revoked_at: datetime | None
    revoke_reason: str
    request: Annotated[str | None, Field(validation_alias="request_id")]


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
    grant: Annotated[str, Field(validation_alias="grant_id")]
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
        return Ask(**self.model_dump())


class IssuedShown(BaseModel):
    """The lease and, this once, the credential. A repeat answers the same lease without it."""

    lease: LeaseShown
    credential: dict[str, str] | None
    secret_available: bool


def grants_shown(tx: Transaction, items: Sequence[Grant]) -> list[GrantShown]:
    """Grants, with the names they refer to."""
    now = clock(tx)
    names = names_of(tx, [id_ for item in items for id_ in (item.dataset_id, item.holder_id)])
    return [
        GrantShown.of(
            item,
            state=_grant_state(item, now),
            dataset=names[item.dataset_id],
            holder_name=names.get(item.holder_id, ""),
        )
        for item in items
    ]


def leases_shown(tx: Transaction, items: Sequence[Lease]) -> list[LeaseShown]:
    """Leases, with the names they refer to."""
    names = names_of(tx, [id_ for item in items for id_ in (item.dataset_id, item.holder_id)])
    slices = slice_names(tx, {item.slice_id for item in items})
    return [
        LeaseShown.of(
            item,
            dataset=names[item.dataset_id],
            slice=slices[item.slice_id],
            holder_name=names.get(item.holder_id, ""),
            ending=kinds[item.kind].ending if item.kind in kinds else None,
        )
        for item in items
    ]


def lease_full(tx: Transaction, caller: Caller, item: Lease) -> LeaseFull:
    """One lease."""
    return LeaseFull(**leases_shown(tx, [item])[0].model_dump(), may_revoke=may_end(tx, caller, item))


def _grant_state(item: Grant, now: datetime) -> Literal["coming", "current", "ended", "revoked"]:
    if item.revoked_at is not None:
        return "revoked"
    if item.starts_at > now:
        return "coming"
    return "current" if item.ends_at > now else "ended"
