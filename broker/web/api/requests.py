"""`/requests`: asking for a role on a dataset, and deciding."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.requests import approving, requests
from broker.requests.dossier import check_unchanged, dossier
from broker.web.api.common import CallerNow, FreshCaller, PartsNow, Reason, WindowNow
from broker.web.api.holding_shapes import GrantShown, grants_shown
from broker.web.api.request_shapes import (
    ApprovalBody,
    RequestBody,
    RequestFull,
    Requests,
    RequestShown,
    full,
    shown,
)
from broker.web.idempotency import KeyHeader, answer, once

router = APIRouter(prefix="/requests", tags=["requests"])
State = Literal["pending", "approved", "refused", "withdrawn", "lapsed"]


@router.get("", operation_id="list_requests")
def list_requests(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    state: Annotated[State | None, Query()] = None,
    view: Annotated[requests.View, Query(description="`queue`: waiting for your decision.")] = "all",
) -> Requests:
    """Requests, newest first."""
    with parts.database.transaction() as tx:
        page = requests.list_requests(tx, caller, window, state=state, view=view)
        return Requests(items=shown(tx, caller, page.items), next_cursor=page.next_cursor)


@router.post("", operation_id="ask", status_code=201, response_model=RequestShown)
def ask(request: Request, body: RequestBody, caller: CallerNow, parts: PartsNow, key: KeyHeader = None) -> Response:
    """Ask for a role on a dataset: for yourself, or as a lead for a team or service."""
    return answer(
        parts,
        once(request, caller, body, key),
        lambda tx, now: shown(tx, caller, [requests.ask(parts, tx, caller, body.new(), now)])[0],
    )


@router.get("/{request_id}", operation_id="show_request")
def show_request(request_id: str, caller: CallerNow, parts: PartsNow) -> RequestFull:
    """One request; to the organisation's people with the facts beside it, and why they cannot decide, if so."""
    with parts.database.transaction() as tx:
        found = requests.request(tx, caller, request_id)
        beside = dossier(parts, tx, caller, found, clock(tx)) if caller.vendor_id is None else None
        return full(tx, found, beside)


@router.post("/{request_id}/remind", operation_id="remind_request")
def remind_request(request_id: str, caller: CallerNow, parts: PartsNow) -> RequestShown:
    """Tell those who decide about your request once more; at most once a day."""
    with parts.database.transaction() as tx:
        return shown(tx, caller, [requests.remind(tx, caller, request_id, clock(tx))])[0]


@router.post("/{request_id}/withdraw", operation_id="withdraw_request")
def withdraw_request(request_id: str, caller: CallerNow, parts: PartsNow) -> RequestShown:
    """Take your own request back."""
    with parts.database.transaction() as tx:
        return shown(tx, caller, [requests.withdraw(tx, caller, request_id, clock(tx))])[0]


@router.post("/{request_id}/approve", operation_id="approve_request", status_code=201)
def approve_request(request_id: str, body: ApprovalBody, caller: FreshCaller, parts: PartsNow) -> GrantShown:
    """Approve: a grant begins now. It may be shorter or narrower than asked for, never wider.

    For the dataset's owner and stewards; for an admin only where there is neither. Never for who asked.
    """
    with parts.database.transaction() as tx:
        now = clock(tx)
        if body.digest is not None:
            found = requests.request(tx, caller, request_id, lock=True)
            check_unchanged(parts, tx, caller, found, body.digest, now)
        grant = approving.approve(parts, tx, caller, request_id, body.narrowing(), now)
        return grants_shown(tx, [grant])[0]


@router.post("/{request_id}/refuse", operation_id="refuse_request")
def refuse_request(request_id: str, body: Reason, caller: CallerNow, parts: PartsNow) -> RequestShown:
    """Refuse; who asked is shown the reason."""
    with parts.database.transaction() as tx:
        return shown(tx, caller, [approving.refuse(tx, caller, request_id, body.reason, clock(tx))])[0]
