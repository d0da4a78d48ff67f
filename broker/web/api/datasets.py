"""`/datasets`: what is protected; its slices; whom it is offered to; who reaches it and why not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, ConfigDict, Field

from broker.base.database import Transaction
from broker.base.errors import Forbidden, Invalid
from broker.base.paging import Whole
from broker.gate import explain
from broker.gate.explain import roles_reaching, slices_without_rule
from broker.gate.facts import Ask
from broker.identity.caller import Caller
from broker.kinds.discovery import kinds
from broker.kinds.tables.filter_values import is_text
from broker.models import Dataset, Offer, Proposal, Request, Slice
from broker.policies import Decision
from broker.registry import datasets, slices
from broker.registry.datasets import DATASETS, DatasetChange, NewDataset, sees_binding
from broker.registry.slices import NewSlice
from broker.runtime.parts import Parts
from broker.suspensions import suspending
from broker.web.api.common import (
    At,
    CallerNow,
    Ended,
    ExactNumbers,
    Id,
    PartsNow,
    Proposed,
    ReasonBody,
    Shown,
    Strict,
    example,
    verb,
)
from broker.web.api.reading import add_list
from broker.web.api.suspensions import SuspendBody, Suspended, suspend
from broker.web.problems import reason_shown

Action = Literal["read", "write"]
Label = Annotated[str, Field(max_length=64, examples=["classification:internal"])]
Moment = Annotated[datetime, Field(strict=False, examples=["2030-01-01T00:00:00Z"])]


class SliceShown(Shown):
    """A slice. Where it lives is shown to the owner, admins and auditors; its id, why it failed and its rows, too.

    The id is what certificates carry in their OU.
    """

    id: str | None
    name: str
    description: str
    kind: str
    actions: list[str]
    state: str
    state_detail: str | None
    rows_estimate: int | None
    binding: dict[str, Any] | None


class DatasetShown(Shown):
    """A dataset, in short."""

    id: str
    slug: str
    title: str
    nature: str
    labels: list[str]
    status: str
    slices: list[str]


class OfferShown(Shown):
    """An offer; `vendor` is the vendor's id."""

    id: str
    vendor: Annotated[str, Field(validation_alias="vendor_id")]
    made_at: datetime


class DatasetFull(Shown):
    """A dataset in full. `roles` are those some rule in force lets in; offers are shown to the organisation.

    `slices_without_rule`: those no rule in force opens to anybody; shown to the owner, admins and auditors.
    """

    id: str
    slug: str
    title: str
    description: str
    nature: str
    labels: list[str]
    owner: str | None
    retention_until: datetime | None
    status: str
    created_at: datetime
    slices: list[SliceShown]
    slices_without_rule: list[str]
    roles: list[str]
    offers: list[OfferShown]


class DatasetBody(Strict):
    """A dataset to make."""

    slug: Annotated[str, Field(min_length=1, max_length=63)]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(max_length=2000)] = ""
    nature: Literal["data", "model"] = "data"
    labels: Annotated[list[Label], Field(max_length=20, default_factory=list)]
    owner: Id | None = None
    retention_until: Moment | None = None

    model_config = example(slug="trials", title="Trial records", labels=["classification:confidential"])

    def new(self) -> NewDataset:
        """As the registry takes it."""
        return NewDataset(**self.model_dump(exclude={"owner"}), owner_id=self.owner)


class DatasetChangeBody(Strict):
    """What is to be different; a field left out stays. `retention_until: null` takes the retention's end away."""

    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    description: Annotated[str, Field(max_length=2000)] | None = None
    labels: Annotated[list[Label], Field(max_length=20)] | None = None
    owner: Id | None = None
    retention_until: Moment | None = None

    def change(self) -> DatasetChange:
        """As the registry takes it."""
        forever = "retention_until" in self.model_fields_set and self.retention_until is None
        return DatasetChange(**self.model_dump(exclude={"owner"}), owner_id=self.owner, forever=forever)


class SliceBody(Strict):
    """A slice to register. The binding's shape is its kind's; see the examples.

    `"fast": true` in a binding of a table lets indexes serve guests' conditions, and lets guests find out whether a
    value exists in a row the slice hides.
    """

    name: Annotated[str, Field(min_length=1, max_length=32)]
    description: Annotated[str, Field(max_length=2000)] = ""
    kind: Annotated[str, Field(max_length=32)] = next(iter(kinds))
    actions: Annotated[list[Action], Field(min_length=1, max_length=2, default_factory=lambda: ["read"])]
    binding: dict[str, Any]

    model_config = ConfigDict(
        json_schema_extra={"examples": [dict(kind.example) for kind in kinds.values() if kind.example]}
    )

    def new(self) -> NewSlice:
        """As the registry takes it.

        Raises:
            Invalid: a text in the binding holds half a character.
        """
        for part in sorted(self.binding, key=lambda name: name != "rows"):
            if not is_text(json.dumps([part, self.binding[part]], ensure_ascii=False, default=str)):
                raise Invalid("This contains a lone surrogate (half of a character).", field=f"/binding/{part}")
        return NewSlice(self.name, self.description, self.kind, self.binding, tuple(self.actions))


class BindingBody(Strict):
    """Where a slice lives, in place of what could not be registered."""

    binding: dict[str, Any]


class FastBody(Strict):
    """Whether a slice that hides rows is read in the faster form, which tells guests of hidden rows."""

    fast: bool


class OfferBody(Strict):
    """Whom to offer the dataset to."""

    vendor: Id


class Why(Shown):
    """A decision; slice, longest lifetime (seconds) and latest end are set if it allows.

    `pending_request`: the request that waits for a decision and would give a role.
    """

    allowed: bool
    reasons: list[dict[str, Any]]
    passed: list[str]
    rules: list[str]
    policy_revision: Annotated[int | None, Field(validation_alias="revision")]
    factor_max_age: Annotated[int | None, Field(validation_alias="factor_needed")]
    slice: str | None
    max_lifetime: int | None
    not_after: datetime | None
    decided_at: datetime
    pending_request: str | None


class ReachShown(Shown):
    """One way to a dataset."""

    grant: str
    holder: str
    holder_name: str
    role: str
    ends_at: datetime
    members: int
    rules: list[Annotated[str, BeforeValidator(str)]]


def datasets_shown(tx: Transaction, items: Sequence[Dataset]) -> list[DatasetShown]:
    """Datasets, in short."""
    parts = slices.slices_of(tx, [item.id for item in items])
    return [DatasetShown.of(item, slices=[slice_.name for slice_ in parts[item.id]]) for item in items]


def dataset_full(parts: Parts, tx: Transaction, caller: Caller, item: Dataset) -> DatasetFull:
    """A dataset in full, as this caller may see it."""
    binding = sees_binding(caller, item)
    found = slices.slices_of(tx, [item.id])[item.id]
    offers: Sequence[Offer] = []
    with suppress(Forbidden):
        offers = datasets.offers_of(tx, caller, item)
    return DatasetFull.of(
        item,
        owner=item.owner_id if caller.vendor_id is None else None,
        slices=[slice_shown(slice_, binding=binding) for slice_ in found],
        slices_without_rule=slices_without_rule(tx, parts.rulebook, item, found) if binding else [],
        roles=roles_reaching(tx, parts.rulebook, item.slug, item.labels),
        offers=offers,
    )


def slice_shown(item: Slice, *, binding: bool) -> SliceShown:
    """A slice; where it lives only if `binding`."""
    hidden = () if binding else ("id", "state_detail", "rows_estimate", "binding")
    return SliceShown.of(item, **dict.fromkeys(hidden))


def why_shown(decision: Decision, waiting: Request | None) -> Why:
    """A decision, for whoever may ask."""
    bounds = decision.bounds
    return Why.of(
        decision,
        reasons=[reason_shown(reason) for reason in decision.reasons],
        slice=bounds.slice if bounds else None,
        max_lifetime=bounds.max_lifetime if bounds else None,
        not_after=bounds.not_after if bounds else None,
        pending_request=waiting.id if waiting else None,
    )


router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=ExactNumbers)


def _full(at: At, found: Dataset) -> DatasetFull:
    return dataset_full(at.parts, at.tx, at.caller, found)


add_list(
    router,
    DATASETS,
    DatasetShown,
    "Datasets, newest first; a vendor's people see what is offered to them.",
    render=lambda at, rows: datasets_shown(at.tx, rows),
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
def who(slug: str, caller: CallerNow, parts: PartsNow) -> Whole[ReachShown]:
    """Who may reach the dataset now, and through what. For its owner, admins and auditors."""
    with parts.database.transaction() as tx:
        found = datasets.dataset(tx, caller, slug)
        items = [ReachShown.of(reach) for reach in explain.who_has_access(parts, tx, caller, found.id)]
    return Whole(items=items)
