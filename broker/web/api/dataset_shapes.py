"""How datasets and what belongs to them look in requests and responses. No decisions here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from broker.base.database import Transaction
from broker.base.errors import Forbidden, Invalid
from broker.gate.simulation import roles_reaching, slices_without_rule
from broker.identity.caller import Caller
from broker.kinds.discovery import kinds
from broker.kinds.tables.filter_values import is_text
from broker.models import Dataset, Offer, Request, Slice
from broker.policies import Decision
from broker.registry import datasets, slices
from broker.registry.datasets import DatasetChange, NewDataset, sees_binding
from broker.registry.slices import NewSlice
from broker.runtime.parts import Parts
from broker.web.api.common import Id
from broker.web.problems import reason_shown
from broker.web.validation import Shown, Strict

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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"slug": "trials", "title": "Trial records", "labels": ["classification:confidential"]}]
        }
    )

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


class Who(Shown):
    """Everybody who may reach a dataset now."""

    items: list[ReachShown]
    next_cursor: None = None


def summaries(tx: Transaction, items: Sequence[Dataset]) -> list[DatasetShown]:
    """Datasets, in short."""
    parts = slices.slices_of(tx, [item.id for item in items])
    return [DatasetShown.of(item, slices=[slice_.name for slice_ in parts[item.id]]) for item in items]


def full(parts: Parts, tx: Transaction, caller: Caller, item: Dataset) -> DatasetFull:
    """A dataset in full, as this caller may see it."""
    binding = sees_binding(caller, item)
    found = slices.slices_of(tx, [item.id])[item.id]
    return DatasetFull.of(
        item,
        owner=item.owner_id if caller.vendor_id is None else None,
        slices=[slice_shown(slice_, binding=binding) for slice_ in found],
        slices_without_rule=slices_without_rule(tx, parts.rulebook, item, found) if binding else [],
        roles=roles_reaching(tx, parts.rulebook, item.slug, item.labels),
        offers=_offers(tx, caller, item),
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


def _offers(tx: Transaction, caller: Caller, item: Dataset) -> Sequence[Offer]:
    try:
        return datasets.offers_of(tx, caller, item)
    except Forbidden:
        return []
