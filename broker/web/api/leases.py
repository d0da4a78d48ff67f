"""`/leases`: getting a credential, looking at its lease, giving it back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from broker.leases import holdings, issuing, renewing
from broker.leases.holdings import LEASES
from broker.web.api.common import CallerNow, PartsNow
from broker.web.api.holding_shapes import IssuedShown, LeaseBody, LeaseFull, LeaseShown, lease_full, leases_shown
from broker.web.api.reading import File, add_list
from broker.web.api.verbs import At, verb
from broker.web.idempotency import KeyHeader, checked_key
from broker.web.validation import Strict

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
    handed = issuing.issue(parts, caller, body.ask(), idempotency_key=checked_key(key))
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
