"""`/datasets`: what is protected; its slices; whom it is offered to; who reaches it and why not."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from broker.gate import explain
from broker.gate.facts import Ask
from broker.models import Dataset, Offer, Proposal
from broker.registry import datasets, slices
from broker.registry.datasets import DATASETS
from broker.suspensions import suspending
from broker.web.api.common import CallerNow, Ended, PartsNow, ReasonBody
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
    slice_shown,
    summaries,
    why_shown,
)
from broker.web.api.reading import add_list
from broker.web.api.suspensions import SuspendBody, Suspended, suspend
from broker.web.api.verbs import At, verb
from broker.web.exact_numbers import ExactNumbers
from broker.web.proposed import Proposed

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=ExactNumbers)


def _full(at: At, found: Dataset) -> DatasetFull:
    return full(at.parts, at.tx, at.caller, found)


add_list(
    router,
    DATASETS,
    DatasetShown,
    "Datasets, newest first; a vendor's people see what is offered to them.",
    render=lambda at, rows: summaries(at.tx, rows),
)


@verb(router, "POST", "", DatasetFull, status=201, fresh=True, repeatable=True)
def add_dataset(at: At, body: DatasetBody) -> DatasetFull:
    """Make a dataset; nobody reaches it yet. For admins."""
    return _full(at, datasets.add_dataset(at.tx, at.caller, body.new(), at.now))


@verb(router, "GET", "/{slug}", DatasetFull)
def show_dataset(at: At, slug: str) -> DatasetFull:
    """One dataset, its slices, and the roles one can ask for."""
    return _full(at, datasets.dataset(at.tx, at.caller, slug))


@verb(router, "PATCH", "/{slug}", DatasetFull, fresh=True, proposes=Proposed)
def change_dataset(at: At, slug: str, body: DatasetChangeBody) -> DatasetFull | Proposal:
    """Describe a dataset anew. For its owner and admins.

    The text and an earlier end of the retention count at once. Owner, labels and a later end wait until the owner or
    a second admin agrees (202).
    """
    changed = datasets.change_dataset(at.tx, at.caller, slug, body.change(), at.now, lifetime=at.lifetime)
    return changed if isinstance(changed, Proposal) else _full(at, changed)


@verb(router, "POST", "/{slug}/slices", SliceShown, status=201, fresh=True, repeatable=True, proposes=Proposed)
def add_slice(at: At, slug: str, body: SliceBody) -> SliceShown | Proposal:
    """Register a slice; it is `ready` once the worker has made it real at its backend. For admins."""
    made = slices.add_slice(at.tx, at.caller, slug, body.new(), at.now, lifetime=at.lifetime)
    return made if isinstance(made, Proposal) else slice_shown(made, binding=True)


@verb(router, "POST", "/{slug}/slices/{name}/retry", SliceShown, status=202, fresh=True)
def retry_slice(at: At, slug: str, name: str) -> SliceShown:
    """Register a slice that failed again, once the cause is fixed. For admins."""
    return slice_shown(slices.retry_slice(at.tx, at.caller, slug, name, at.now), binding=True)


@verb(router, "PUT", "/{slug}/slices/{name}/binding", SliceShown, status=202, fresh=True)
def repair_slice(at: At, slug: str, name: str, body: BindingBody) -> SliceShown:
    """Give a slice that failed another binding, and have it registered. For admins."""
    return slice_shown(slices.repair_slice(at.tx, at.caller, slug, name, body.binding, at.now), binding=True)


@verb(router, "PUT", "/{slug}/slices/{name}/fast", SliceShown, status=202, fresh=True)
def set_slice_fast(at: At, slug: str, name: str, body: FastBody) -> SliceShown:
    """Let indexes serve guests' conditions on a slice that hides rows, or not. For the dataset's owner.

    With `fast`, guests can find out whether a value exists in a hidden row (by plans and times), and estimates over all
    rows of the table. Without, the slice is filled for each query, and nothing tells of hidden rows.
    """
    return slice_shown(slices.set_fast(at.tx, at.caller, slug, name, at.now, fast=body.fast), binding=True)


@verb(router, "POST", "/{slug}/slices/{name}/confirm", SliceShown, status=202, fresh=True)
def confirm_slice(at: At, slug: str, name: str) -> SliceShown:
    """Take a slice whose table has changed as it is now; it is registered anew. For the dataset's owner.

    While a slice is `changed`, nothing is issued from it; `state_detail` says what has changed. An admin may only where
    the dataset has no active owner.
    """
    return slice_shown(slices.confirm_slice(at.tx, at.caller, slug, name, at.now), binding=True)


@verb(router, "POST", "/{slug}/slices/{name}/retire", Ended, status=202, fresh=True)
def retire_slice(at: At, slug: str, name: str, body: ReasonBody) -> Ended:
    """Retire a slice; its leases end. For admins."""
    leases = slices.retire_slice(at.tx, at.caller, slug, name, body.reason, at.now)
    return Ended(id=name, status="retired", leases=leases)


@verb(router, "POST", "/{slug}/offers", OfferShown, status=201, fresh=True, repeatable=True)
def make_offer(at: At, slug: str, body: OfferBody) -> Offer:
    """Show a dataset to a vendor. For its owner and admins."""
    return datasets.make_offer(at.tx, at.caller, slug, body.vendor, at.now)


@verb(router, "DELETE", "/{slug}/offers/{vendor_id}", Ended)
def withdraw_offer(at: At, slug: str, vendor_id: str) -> Ended:
    """Take a dataset out of a vendor's sight; its leases on it end. For the owner and admins."""
    leases = datasets.withdraw_offer(at.tx, at.caller, slug, vendor_id, at.now)
    return Ended(id=vendor_id, status="withdrawn", leases=leases)


@verb(router, "POST", "/{slug}/suspend", Suspended, status=202, fresh=True)
def suspend_dataset(at: At, slug: str, body: SuspendBody) -> Suspended:
    """Close a dataset to everybody. For its owner and admins."""
    return suspend(at, "dataset", slug, body)


@verb(router, "POST", "/{slug}/resume", DatasetFull, fresh=True)
def resume_dataset(at: At, slug: str, body: ReasonBody) -> DatasetFull:
    """Open a suspended dataset again; no lease comes back. For its owner and admins."""
    suspending.resume(at.tx, at.caller, "dataset", slug, body.reason, at.now)
    return _full(at, datasets.dataset(at.tx, at.caller, slug))


@verb(router, "POST", "/{slug}/retire", Ended, status=202, fresh=True)
def retire_dataset(at: At, slug: str, body: ReasonBody) -> Ended:
    """Close a dataset for good. For admins."""
    leases = datasets.retire_dataset(at.tx, at.caller, slug, body.reason, at.now)
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
        decision = explain.explain_access(parts, tx, caller, ask, person_id=person)
        return why_shown(decision, explain.pending_request(tx, caller, found.id, person_id=person))


@router.get("/{slug}/who", operation_id="who")
def who(slug: str, caller: CallerNow, parts: PartsNow) -> Who:
    """Who may reach the dataset now, and through what. For its owner, admins and auditors."""
    with parts.database.transaction() as tx:
        found = datasets.dataset(tx, caller, slug)
        return Who.model_validate({"items": explain.who_has_access(parts, tx, caller, found.id)})
