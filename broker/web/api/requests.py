"""`/requests`: asking for a role on a dataset, and deciding."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.models import Grant, Request
from broker.registry.naming import names_of
from broker.requests import approving, requests
from broker.requests.approving import Narrowing
from broker.requests.dossier import Dossier, HolderHistory, check_unchanged, dossier
from broker.requests.requests import (
    LONGEST_PERIOD,
    REQUESTS,
    SHORTEST_PERIOD,
    NewRequest,
    grants_made,
    may_remind_from,
    undecidable,
    untended,
)
from broker.web.api.common import At, Id, Prose, ReasonBody, Shown, Strict, example, verb
from broker.web.api.datasets import SliceShown, slice_shown
from broker.web.api.grants import GrantShown, grants_shown
from broker.web.api.kinds import EndingShown
from broker.web.api.reading import add_list, add_show
from broker.web.problems import reason_shown


class Named(Shown):
    """A person, by id and name."""

    id: str
    name: str


class GrantedShown(Shown):
    """What was approved, beside what was asked for. `period` and `max_lifetime` are in seconds.

    `less`: in what it is less than that, of `period`, `slice`, `lifetime`.
    """

    ends_at: datetime
    period: int
    slice: Annotated[str | None, Field(validation_alias="slice_name")]
    max_lifetime: int | None
    less: list[str]


class RequestShown(Shown):
    """A request by `person`, for themselves or `for_person`, a team or a service. `period` is in seconds.

    A grant of it ends at `until` at the latest. `decision_reason` is what the approver said; who asked may remind.
    `waits_for` is `owner` (or a steward), `admin` where the dataset has neither, or `nobody` where it is in a way
    the own request of whoever would decide; null once it is decided.
    """

    id: str
    state: str
    person: Named
    for_person: Named | None
    team: Annotated[str | None, Field(validation_alias="team_id")]
    service: Annotated[str | None, Field(validation_alias="service_id")]
    dataset: str
    role: str
    slice: Annotated[str | None, Field(validation_alias="slice_name")]
    purpose: str
    period: int
    until: datetime | None
    created_at: datetime
    lapses_at: datetime
    remind_from: datetime
    decided_at: datetime | None
    decided_by: Named | None
    decision_reason: str
    grant: str | None
    granted: GrantedShown | None
    waits_for: Literal["owner", "admin", "nobody"] | None


class SliceOpened(SliceShown):
    """A slice that the role opens; `role_may` is what it may do there: read, write."""

    role_may: list[str]


class HolderShown(Shown):
    """Whoever would hold the grant; `members` counts a team's people, who are named in `people`; else it is 1."""

    kind: str
    id: str
    name: str
    members: int
    people: list[str]


class RequestFacts(Shown):
    """What an approver needs to see, in order. Quote `digest` when approving.

    `owner_suspended`: the dataset's owner cannot decide. `somebody_may_decide`: whether anybody active could now.
    """

    person_status: str
    issuer: str
    vendor: str | None
    vendor_name: str | None
    vendor_status: str | None
    holder: HolderShown
    labels: list[str]
    retention_until: datetime | None
    slices: list[SliceOpened]
    longest_period: int
    longest_lifetime: int | None
    rules: list[str]
    unmet_now: list[dict[str, Any]]
    lasting: list[dict[str, Any]]
    history: HolderHistory
    endings: dict[str, EndingShown]
    policy_revision: Annotated[int | None, Field(validation_alias="revision")]
    digest: str
    may_decide: bool
    why_not: str | None
    owner_suspended: bool
    somebody_may_decide: bool


class RequestFull(RequestShown):
    """A request and, for the organisation's people, the facts beside it."""

    facts: RequestFacts | None


class RequestBody(Strict):
    """What is asked for. `dataset` is a slug, `period` is in seconds."""

    dataset: Annotated[str, Field(min_length=1, max_length=64)]
    role: Annotated[str, Field(min_length=1, max_length=32)]
    slice: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    purpose: Prose
    period: Annotated[int, Field(ge=SHORTEST_PERIOD, le=LONGEST_PERIOD)]
    person: Annotated[Id | None, Field(description="One of a lead's own staff; left out, it is for yourself.")] = None
    team: Id | None = None
    service: Id | None = None

    model_config = example(
        dataset="trials", role="annotator", slice="deidentified", purpose="Label the March visits", period=604800
    )

    def new(self) -> NewRequest:
        """As the registry takes it."""
        renamed = {f"{name}_id": getattr(self, name) for name in ("person", "team", "service")}
        return NewRequest(**self.model_dump(exclude={"person", "team", "service"}), **renamed)


class ApprovalBody(Strict):
    """What the approver takes away; all may be left out. `digest` guards against facts that changed meanwhile."""

    period: Annotated[int, Field(ge=SHORTEST_PERIOD, le=LONGEST_PERIOD)] | None = None
    slice: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    max_lifetime: Annotated[int, Field(ge=60, le=86400)] | None = None
    digest: Annotated[str, Field(max_length=64)] | None = None


def requests_shown(tx: Transaction, caller: Caller, items: Sequence[Request]) -> list[RequestShown]:
    """Requests, with the names they refer to; who decided is named to the organisation's people only."""
    named = {id_ for item in items for id_ in (item.person_id, item.for_person_id, item.decided_by, item.dataset_id)}
    names = names_of(tx, filter(None, named))
    pending = [item for item in items if item.state == "pending"]
    left = untended(tx, {item.dataset_id for item in pending})
    stuck = undecidable(tx, {item.id for item in pending})
    grants = grants_made(tx, {item.id for item in items})

    def person(id_: str | None) -> Named | None:
        return Named(id=id_, name=names[id_]) if id_ else None

    return [
        RequestShown.of(
            item,
            person=person(item.person_id),
            for_person=person(item.for_person_id),
            dataset=names[item.dataset_id],
            remind_from=may_remind_from(item),
            decided_by=person(item.decided_by) if caller.vendor_id is None else None,
            waits_for=_waits_for(item, left, stuck),
            grant=grant.id if (grant := grants.get(item.id)) else None,
            granted=_granted(item, grant) if grant else None,
        )
        for item in items
    ]


def request_full(tx: Transaction, caller: Caller, item: Request, beside: Dossier | None) -> RequestFull:
    """One request, with the facts beside it where the reader may see them."""
    found = requests_shown(tx, caller, [item])[0]
    return RequestFull(**found.model_dump(), facts=facts_shown(beside) if beside else None)


def facts_shown(beside: Dossier) -> RequestFacts:
    """The facts beside a request."""
    vendor = beside.vendor
    return RequestFacts.of(
        beside,
        person_status=beside.person.status,
        issuer=beside.person.issuer,
        vendor=vendor.id if vendor else None,
        vendor_name=vendor.name if vendor else None,
        vendor_status=vendor.status if vendor else None,
        labels=beside.dataset.labels,
        retention_until=beside.dataset.retention_until,
        slices=[
            SliceOpened(**slice_shown(item, binding=True).model_dump(), role_may=list(beside.doing[item.name]))
            for item in beside.slices
        ],
        unmet_now=[reason_shown(reason) for reason in beside.unmet_now],
        lasting=[reason_shown(reason) for reason in beside.lasting],
        may_decide=beside.refusal is None,
        why_not=beside.refusal.detail if beside.refusal else None,
    )


def _waits_for(item: Request, left: set[str], stuck: set[str]) -> str | None:
    if item.state != "pending":
        return None
    return "admin" if item.dataset_id in left else "nobody" if item.id in stuck else "owner"


def _granted(item: Request, grant: Grant) -> GrantedShown:
    """What came of a request; a grant never lasts beyond `until`, nor is that shorter than was asked for."""
    period = int((grant.ends_at - grant.starts_at).total_seconds())
    wanted = min(filter(None, (grant.starts_at + timedelta(seconds=item.period), item.until)))
    less = {
        "period": grant.ends_at < wanted,
        "slice": grant.slice_name != item.slice_name,
        "lifetime": grant.max_lifetime is not None,
    }
    return GrantedShown.of(grant, period=period, less=[name for name, is_less in less.items() if is_less])


router = APIRouter(prefix="/requests", tags=["requests"])


def _one(at: At, found: Request) -> RequestShown:
    return requests_shown(at.tx, at.caller, [found])[0]


def _full(at: At, found: Request) -> RequestFull:
    beside = dossier(at.parts, at.tx, at.caller, found, at.now) if at.caller.vendor_id is None else None
    return request_full(at.tx, at.caller, found, beside)


add_list(
    router,
    REQUESTS,
    RequestShown,
    "Requests, newest first.",
    render=lambda at, rows: requests_shown(at.tx, at.caller, rows),
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
    narrowing = Narrowing(body.period, body.slice, body.max_lifetime)
    grant = approving.approve(at.parts, at.tx, at.caller, request_id, narrowing, at.now)
    return grants_shown(at.tx, [grant])[0]


@verb(router, "POST", "/{request_id}/refuse", RequestShown, command=("request refuse", "Request {id} refused."))
def refuse_request(at: At, request_id: str, body: ReasonBody) -> RequestShown:
    """Refuse a request; the reason is shown to the person who sent it."""
    return _one(at, approving.refuse(at.tx, at.caller, request_id, body.reason, at.now))
