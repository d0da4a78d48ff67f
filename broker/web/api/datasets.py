"""`/datasets`: what is protected; its slices; whom it is offered to; who reaches it and why not."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.gate import explain
from broker.gate.facts import Ask
from broker.models import Proposal, Slice
from broker.registry import datasets, offers, slice_changes, slices
from broker.registry.datasets import DATASETS
from broker.suspensions import suspending
from broker.web import proposed
from broker.web.api.common import CallerNow, Ended, FreshCaller, PartsNow, Reason
from broker.web.api.dataset_shapes import (
    BindingBody,
    DatasetBody,
    DatasetChangeBody,
    DatasetFull,
    DatasetShown,
    FastBody,
    OfferBody,
    OfferShown,
    SliceBody,
    SliceShown,
    Who,
    Why,
    full,
    offer_shown,
    slice_shown,
    summaries,
    who_shown,
    why_shown,
)
from broker.web.api.reading import add_list
from broker.web.api.suspensions import SuspendBody, Suspended
from broker.web.exact_numbers import ExactNumbers
from broker.web.idempotency import KeyHeader, answer, once

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=ExactNumbers)
Status = Literal["active", "suspended", "retired"]


add_list(
    router,
    DATASETS,
    DatasetShown,
    "Datasets, newest first; a vendor's people see what is offered to them.",
    render=lambda at, rows: summaries(at.tx, rows),
)


@router.post("", operation_id="add_dataset", status_code=201, response_model=DatasetFull)
def add_dataset(
    request: Request, body: DatasetBody, caller: FreshCaller, parts: PartsNow, key: KeyHeader = None
) -> Response:
    """Make a dataset; nobody reaches it yet. For admins."""
    return answer(
        parts,
        once(request, caller, body, key),
        lambda tx, now: full(parts, tx, caller, datasets.add_dataset(tx, caller, body.new(), now)),
    )


@router.get("/{slug}", operation_id="show_dataset")
def show_dataset(slug: str, caller: CallerNow, parts: PartsNow) -> DatasetFull:
    """One dataset, its slices, and the roles one can ask for."""
    with parts.database.transaction() as tx:
        return full(parts, tx, caller, datasets.dataset(tx, caller, slug))


@router.patch("/{slug}", operation_id="change_dataset", response_model=DatasetFull, responses=proposed.RESPONSES)
def change_dataset(slug: str, body: DatasetChangeBody, caller: FreshCaller, parts: PartsNow) -> Any:
    """Describe a dataset anew. For its owner and admins.

    The text and an earlier end of the retention count at once. Owner, labels and a later end wait until the owner or
    a second admin agrees (202).
    """
    with parts.database.transaction() as tx:
        lifetime = proposed.lifetime_of(parts)
        changed = datasets.change_dataset(tx, caller, slug, body.change(), clock(tx), lifetime=lifetime)
        if isinstance(changed, Proposal):
            return proposed.answer_proposed(changed)
        return full(parts, tx, caller, changed)


@router.post(
    "/{slug}/slices",
    operation_id="add_slice",
    status_code=201,
    response_model=SliceShown,
    responses=proposed.RESPONSES,
)
def add_slice(
    slug: str, request: Request, body: SliceBody, caller: FreshCaller, parts: PartsNow, key: KeyHeader = None
) -> Response:
    """Register a slice; it is `ready` once the worker has made it real at its backend. For admins."""
    new = body.new()
    return answer(
        parts,
        once(request, caller, body, key),
        lambda tx, now: _slice_or_proposal(
            slices.add_slice(tx, caller, slug, new, now, lifetime=proposed.lifetime_of(parts))
        ),
    )


@router.post("/{slug}/slices/{name}/retry", operation_id="retry_slice", status_code=202)
def retry_slice(slug: str, name: str, caller: FreshCaller, parts: PartsNow) -> SliceShown:
    """Register a slice that failed again, once the cause is fixed. For admins."""
    with parts.database.transaction() as tx:
        return slice_shown(slices.retry_slice(tx, caller, slug, name, clock(tx)), binding=True)


@router.put("/{slug}/slices/{name}/binding", operation_id="repair_slice", status_code=202)
def repair_slice(slug: str, name: str, body: BindingBody, caller: FreshCaller, parts: PartsNow) -> SliceShown:
    """Give a slice that failed another binding, and have it registered. For admins."""
    with parts.database.transaction() as tx:
        repaired = slice_changes.repair_slice(tx, caller, slug, name, body.binding, clock(tx))
        return slice_shown(repaired, binding=True)


@router.put("/{slug}/slices/{name}/fast", operation_id="set_slice_fast", status_code=202)
def set_slice_fast(slug: str, name: str, body: FastBody, caller: FreshCaller, parts: PartsNow) -> SliceShown:
    """Let indexes serve guests' conditions on a slice that hides rows, or not. For the dataset's owner.

    With `fast`, guests can find out whether a value exists in a hidden row (by plans and times), and estimates over all
    rows of the table. Without, the slice is filled for each query, and nothing tells of hidden rows.
    """
    with parts.database.transaction() as tx:
        changed = slice_changes.set_fast(tx, caller, slug, name, clock(tx), fast=body.fast)
        return slice_shown(changed, binding=True)


@router.post("/{slug}/slices/{name}/confirm", operation_id="confirm_slice", status_code=202)
def confirm_slice(slug: str, name: str, caller: FreshCaller, parts: PartsNow) -> SliceShown:
    """Take a slice whose table has changed as it is now; it is registered anew. For the dataset's owner.

    While a slice is `changed`, nothing is issued from it; `state_detail` says what has changed. An admin may only where
    the dataset has no active owner.
    """
    with parts.database.transaction() as tx:
        return slice_shown(slice_changes.confirm_slice(tx, caller, slug, name, clock(tx)), binding=True)


@router.post("/{slug}/slices/{name}/retire", operation_id="retire_slice", status_code=202)
def retire_slice(slug: str, name: str, body: Reason, caller: FreshCaller, parts: PartsNow) -> Ended:
    """Retire a slice; its leases end. For admins."""
    with parts.database.transaction() as tx:
        leases = slices.retire_slice(tx, caller, slug, name, body.reason, clock(tx))
    return Ended(id=name, status="retired", leases=leases)


@router.post("/{slug}/offers", operation_id="make_offer", status_code=201, response_model=OfferShown)
def make_offer(
    slug: str, request: Request, body: OfferBody, caller: FreshCaller, parts: PartsNow, key: KeyHeader = None
) -> Response:
    """Show a dataset to a vendor. For its owner and admins."""
    return answer(
        parts,
        once(request, caller, body, key),
        lambda tx, now: offer_shown(offers.make_offer(tx, caller, slug, body.vendor, now)),
    )


@router.delete("/{slug}/offers/{vendor_id}", operation_id="withdraw_offer")
def withdraw_offer(slug: str, vendor_id: str, caller: CallerNow, parts: PartsNow) -> Ended:
    """Take a dataset out of a vendor's sight; its leases on it end. For the owner and admins."""
    with parts.database.transaction() as tx:
        leases = offers.withdraw_offer(tx, caller, slug, vendor_id, clock(tx))
    return Ended(id=vendor_id, status="withdrawn", leases=leases)


@router.post("/{slug}/suspend", operation_id="suspend_dataset", status_code=202)
def suspend_dataset(slug: str, body: SuspendBody, caller: FreshCaller, parts: PartsNow) -> Suspended:
    """Close a dataset to everybody. For its owner and admins."""
    expected = body.expected.model_dump() if body.expected else None
    with parts.database.transaction() as tx:
        begun, leases = suspending.suspend(
            tx, caller, "dataset", slug, body.reason, clock(tx), message=body.message, expected=expected
        )
    return Suspended(id=begun.target_id, status="suspended", leases=leases, suspension=begun.id)


@router.post("/{slug}/resume", operation_id="resume_dataset")
def resume_dataset(slug: str, body: Reason, caller: FreshCaller, parts: PartsNow) -> DatasetFull:
    """Open a suspended dataset again; no lease comes back. For its owner and admins."""
    with parts.database.transaction() as tx:
        suspending.resume(tx, caller, "dataset", slug, body.reason, clock(tx))
        return full(parts, tx, caller, datasets.dataset(tx, caller, slug))


@router.post("/{slug}/retire", operation_id="retire_dataset", status_code=202)
def retire_dataset(slug: str, body: Reason, caller: FreshCaller, parts: PartsNow) -> Ended:
    """Close a dataset for good. For admins."""
    with parts.database.transaction() as tx:
        leases = datasets.retire_dataset(tx, caller, slug, body.reason, clock(tx))
    return Ended(id=slug, status="retired", leases=leases)


@router.get("/{slug}/why", operation_id="why")
def why(
    slug: str,
    caller: CallerNow,
    parts: PartsNow,
    action: Annotated[Literal["read", "write"], Query()] = "read",
    slice_name: Annotated[str | None, Query(alias="slice", max_length=64)] = None,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    lifetime: Annotated[int | None, Query(ge=1, le=86400, description="Seconds.")] = None,
    person: Annotated[str | None, Query(max_length=64, description="Only for owner, admin and auditor.")] = None,
) -> Why:
    """What the gate would say now, every reason included; issues nothing. 200 also when it would deny."""
    with parts.database.transaction() as tx:
        found = datasets.dataset(tx, caller, slug)
    ask = Ask(found.id, action, slice_name, kind, lifetime)
    decision = explain.explain_access(parts, caller, ask, person_id=person)
    with parts.database.transaction() as tx:
        return why_shown(decision, explain.pending_request(tx, caller, found.id, person_id=person))


@router.get("/{slug}/who", operation_id="who")
def who(slug: str, caller: CallerNow, parts: PartsNow) -> Who:
    """Who may reach the dataset now, and through what. For its owner, admins and auditors."""
    with parts.database.transaction() as tx:
        found = datasets.dataset(tx, caller, slug)
    return who_shown(explain.who_has_access(parts, caller, found.id))


def _slice_or_proposal(made: Slice | Proposal) -> SliceShown | proposed.Proposed:
    return proposed.proposed(made) if isinstance(made, Proposal) else slice_shown(made, binding=True)
