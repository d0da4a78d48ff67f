"""`/leases`: getting a credential, looking at its lease, giving it back."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from broker.base.database import now as clock
from broker.leases import holdings, issuing, renewing
from broker.web.api.common import CallerNow, PartsNow, PersonFilter, WindowNow
from broker.web.api.holding_shapes import (
    Issued,
    LeaseBody,
    LeaseFull,
    Leases,
    LeaseShown,
    lease_full,
    leases_shown,
)
from broker.web.idempotency import KeyHeader, checked_key
from broker.web.validation import Strict

router = APIRouter(prefix="/leases", tags=["leases"])
State = Literal["pending", "active", "revoking", "revoked", "expired", "revoke_failed", "live"]


class Revocation(Strict):
    """Why the lease is ended, if that is worth saying."""

    reason: Annotated[str, Field(max_length=2000)] = ""


class Renewal(Strict):
    """How long from now, in seconds; left out, as long as it was last given for, as far as the rule allows now."""

    lifetime: Annotated[int | None, Field(ge=1, le=86_400)] = None


@router.get("", operation_id="list_leases")
def list_leases(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    state: Annotated[State | None, Query(description="`live`: any state before the end.")] = None,
    dataset: Annotated[str | None, Query(max_length=64)] = None,
    person: PersonFilter = None,
) -> Leases:
    """Leases, newest first."""
    filters = holdings.Filters(dataset=dataset, person=person, state=state)
    with parts.database.transaction() as tx:
        filters = holdings.with_ids(tx, caller, filters)
        page = holdings.list_leases(tx, caller, window, filters)
        return Leases(items=leases_shown(tx, page.items), next_cursor=page.next_cursor)


@router.post("", operation_id="issue", status_code=201)
def issue(body: LeaseBody, caller: CallerNow, parts: PartsNow, response: Response, key: KeyHeader = None) -> Issued:
    """Get a credential, if every condition holds at this moment. It is handed over once and stored nowhere."""
    handed = issuing.issue(parts, caller, body.ask(), idempotency_key=checked_key(key))
    response.headers["Cache-Control"] = "no-store"
    with parts.database.transaction() as tx:
        shown = leases_shown(tx, [handed.lease])[0]
    values = dict(handed.values) if handed.values is not None else None
    return Issued(lease=shown, credential=values, secret_available=values is not None)


@router.get("/{lease_id}", operation_id="show_lease")
def show_lease(lease_id: str, caller: CallerNow, parts: PartsNow) -> LeaseFull:
    """One lease. A state is shown as ended only when the backend confirmed it."""
    with parts.database.transaction() as tx:
        return lease_full(tx, caller, holdings.lease(tx, caller, lease_id))


@router.post("/{lease_id}/renew", operation_id="renew_lease")
def renew_lease(lease_id: str, body: Renewal, caller: CallerNow, parts: PartsNow) -> LeaseShown:
    """Let the same credential live longer, if every condition holds at this moment. Nothing is handed over again."""
    lease = renewing.renew(parts, caller, lease_id, body.lifetime)
    with parts.database.transaction() as tx:
        return leases_shown(tx, [lease])[0]


@router.post("/{lease_id}/revoke", operation_id="revoke_lease", status_code=202)
def revoke_lease(lease_id: str, body: Revocation, caller: CallerNow, parts: PartsNow) -> LeaseShown:
    """Ask for the end of a lease; twice is fine. Look at the lease until its backend has confirmed."""
    with parts.database.transaction() as tx:
        lease = holdings.revoke_lease(tx, caller, lease_id, body.reason, clock(tx))
        return leases_shown(tx, [lease])[0]
