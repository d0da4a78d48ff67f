"""`/requests`: asking for a role on a dataset, and deciding."""

from __future__ import annotations

from fastapi import APIRouter

from broker.models import Request
from broker.requests import approving, requests
from broker.requests.dossier import check_unchanged, dossier
from broker.requests.requests import REQUESTS
from broker.web.api.common import ReasonBody
from broker.web.api.holding_shapes import GrantShown, grants_shown
from broker.web.api.reading import add_list, add_show
from broker.web.api.request_shapes import ApprovalBody, RequestBody, RequestFull, RequestShown, full, shown
from broker.web.api.verbs import At, verb

router = APIRouter(prefix="/requests", tags=["requests"])


def _one(at: At, found: Request) -> RequestShown:
    return shown(at.tx, at.caller, [found])[0]


def _full(at: At, found: Request) -> RequestFull:
    beside = dossier(at.parts, at.tx, at.caller, found, at.now) if at.caller.vendor_id is None else None
    return full(at.tx, at.caller, found, beside)


add_list(
    router, REQUESTS, RequestShown, "Requests, newest first.", render=lambda at, rows: shown(at.tx, at.caller, rows)
)


@verb(router, "POST", "", RequestShown, status=201, repeatable=True)
def ask(at: At, body: RequestBody) -> RequestShown:
    """Ask for a role on a dataset: for yourself, or as a lead for a team or service."""
    return _one(at, requests.ask(at.parts, at.tx, at.caller, body.new(), at.now))


add_show(
    router,
    REQUESTS,
    RequestFull,
    "One request; to the organisation's people with the facts beside it, and why they cannot decide, if so.",
    render=_full,
)


@verb(
    router,
    "POST",
    "/{request_id}/remind",
    RequestShown,
    command=("request remind", "The people who decide {id} were sent a reminder."),
)
def remind_request(at: At, request_id: str) -> RequestShown:
    """Send a reminder to the people who decide your request; at most once a day."""
    return _one(at, requests.remind(at.tx, at.caller, request_id, at.now))


@verb(router, "POST", "/{request_id}/withdraw", RequestShown, command=("request withdraw", "Request {id} withdrawn."))
def withdraw_request(at: At, request_id: str) -> RequestShown:
    """Withdraw your request."""
    return _one(at, requests.withdraw(at.tx, at.caller, request_id, at.now))


@verb(router, "POST", "/{request_id}/approve", GrantShown, status=201, fresh=True)
def approve_request(at: At, request_id: str, body: ApprovalBody) -> GrantShown:
    """Approve: a grant begins now. It may be shorter or narrower than asked for, never wider.

    For the dataset's owner and stewards; for an admin only where there is neither. Never for who asked.
    """
    if body.digest is not None:
        found = REQUESTS.one(at.tx, at.caller, request_id, lock=True)
        check_unchanged(at.parts, at.tx, at.caller, found, body.digest, at.now)
    grant = approving.approve(at.parts, at.tx, at.caller, request_id, body.narrowing(), at.now)
    return grants_shown(at.tx, [grant])[0]


@verb(router, "POST", "/{request_id}/refuse", RequestShown, command=("request refuse", "Request {id} refused."))
def refuse_request(at: At, request_id: str, body: ReasonBody) -> RequestShown:
    """Refuse a request; the reason is shown to the person who sent it."""
    return _one(at, approving.refuse(at.tx, at.caller, request_id, body.reason, at.now))
