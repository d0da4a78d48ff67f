"""`/leases`: getting a credential, looking at its lease, giving it back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from broker.base.database import Transaction
from broker.gate.facts import Ask
from broker.identity.caller import Caller
from broker.kinds.discovery import kinds
from broker.leases import holdings, issuing, renewing
from broker.leases.holdings import LEASES, may_end
from broker.models import Lease
from broker.registry.naming import names_of
from broker.registry.slices import slice_names
from broker.web.api.common import At, CallerNow, KeyHeader, PartsNow, Shown, Strict, checked_key, example, verb
from broker.web.api.kinds import EndingShown
from broker.web.api.reading import File, add_list

# What no name is made of is kept out of the log, too, which shows for ever what was asked for.
_PRINTED = r"^[!-~]+$"


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

    model_config = example(dataset="trials", slice="deidentified")


class IssuedShown(BaseModel):
    """The lease and, this once, the credential. A repeat answers the same lease without it."""

    lease: LeaseShown
    credential: dict[str, str] | None
    secret_available: bool


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


router = APIRouter(prefix="/leases", tags=["leases"])


class Revocation(Strict):
    """Why the lease is ended, if that is worth saying."""

    reason: Annotated[str, Field(max_length=2000)] = ""


class Renewal(Strict):
    """How long from now, in seconds; left out, as long as it was last given for, as far as the rule allows now."""

    lifetime: Annotated[int | None, Field(ge=1, le=86_400)] = None


add_list(
    router,
    LEASES,
    LeaseShown,
    "Leases, newest first.",
    render=lambda at, rows: leases_shown(at.tx, rows),
    file=File(
        "Every lease of exactly this filter that you may see; never a secret. Recorded as an event.",
        # How a kind of credential ends is the same for each of its leases, and no cell's worth.
        tuple(name for name in LeaseShown.model_fields if name != "ending"),
        lambda at, rows: [shown.model_dump(mode="json") for shown in leases_shown(at.tx, rows)],
    ),
)


@router.post("", operation_id="issue", status_code=201)
def issue(
    body: LeaseBody, caller: CallerNow, parts: PartsNow, response: Response, key: KeyHeader = None
) -> IssuedShown:
    """Get a credential, if every condition holds at this moment. It is handed over once and stored nowhere."""
    handed = issuing.issue(parts, caller, Ask(**body.model_dump()), idempotency_key=checked_key(key))
    response.headers["Cache-Control"] = "no-store"
    with parts.database.transaction() as tx:
        shown = leases_shown(tx, [handed.lease])[0]
    values = dict(handed.values) if handed.values is not None else None
    return IssuedShown(lease=shown, credential=values, secret_available=values is not None)


@verb(router, "GET", "/{lease_id}", LeaseFull)
def show_lease(at: At, lease_id: str) -> LeaseFull:
    """One lease. A state is shown as ended only when the backend confirmed it."""
    return lease_full(at.tx, at.caller, holdings.lease(at.tx, at.caller, lease_id))


@router.post("/{lease_id}/renew", operation_id="renew_lease")
def renew_lease(lease_id: str, body: Renewal, caller: CallerNow, parts: PartsNow) -> LeaseShown:
    """Let the same credential live longer, if every condition holds at this moment. Nothing is handed over again."""
    lease = renewing.renew(parts, caller, lease_id, body.lifetime)
    with parts.database.transaction() as tx:
        return leases_shown(tx, [lease])[0]


@verb(router, "POST", "/{lease_id}/revoke", LeaseShown, status=202)
def revoke_lease(at: At, lease_id: str, body: Revocation) -> LeaseShown:
    """Ask for the end of a lease; twice is fine. Look at the lease until its backend has confirmed."""
    return leases_shown(at.tx, [holdings.revoke_lease(at.tx, at.caller, lease_id, body.reason, at.now)])[0]
