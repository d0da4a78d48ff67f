"""Changing a slice that is there: confirmed after its table changed, repaired after it failed, or made faster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from broker.base.database import Transaction, notify
from broker.base.errors import Conflict, Invalid
from broker.identity.caller import Caller
from broker.identity.permissions import require_admin
from broker.kinds.discovery import kinds
from broker.log import audit
from broker.models import Dataset, Slice
from broker.registry import affected_datasets, filter_check
from broker.registry.approvers import not_decider
from broker.registry.datasets import dataset, is_owner
from broker.registry.slices import REGISTERING_CHANNEL, refuse_fast, slice_of


def may_confirm(tx: Transaction, caller: Caller, of: Dataset) -> bool:
    """Whether the caller says of a dataset's slices what they may show.

    Its owner or a steward; an admin where there is neither, but not whoever added the dataset or suspended its owner.
    """
    return not_decider(tx, caller, of.id, "") is None


def confirm_slice(tx: Transaction, caller: Caller, slug: str, name: str, now: datetime) -> Slice:
    """Take a slice whose table has changed as it is now: its owner has looked. It is registered anew.

    An admin may only where nobody owns the dataset, or its owner is not active; never whoever bound the slice.

    Raises:
        Conflict: nothing has changed behind it.
        Forbidden: the caller is not its owner.
    """
    of = dataset(tx, caller, slug)
    found = slice_of(tx, of.id, name)
    _require_say(tx, caller, of, found)
    if of.status == "retired" or found.state != "changed":
        raise Conflict(
            "The table behind this slice has not changed.", advice="Reload the page to see its current state."
        )
    details = {"dataset": of.id, "was": found.state_detail}
    return _register_again(tx, caller, found, "slice.confirmed", details, now)


def repair_slice(
    tx: Transaction, caller: Caller, slug: str, name: str, binding: Mapping[str, Any], now: datetime
) -> Slice:
    """Give a slice that could not be registered another binding, and have it registered. For admins.

    Raises:
        Invalid: something in the binding is unknown, malformed, or could widen what it shows.
        Conflict: it has not failed.
    """
    require_admin(caller)
    of = dataset(tx, caller, slug)
    found = slice_of(tx, of.id, name)
    if of.status == "retired" or found.state != "failed":
        raise Conflict("Only a slice that failed can be repaired.", advice="Retire it and add another.")
    checked = filter_check.checked(tx, found.kind, kinds[found.kind].check_binding(binding))
    refuse_fast(caller, of, checked)
    # Grants, requests and slices of the dataset that come meanwhile wait for this, or are seen below.
    tx.execute(select(Dataset.id).where(Dataset.id == of.id).with_for_update())
    if affected_datasets.datasets_opened(tx, of, found.kind, checked):
        raise Conflict(
            "This could give people access at once, so it needs the owner or a second admin.",
            advice="Retire the slice and add it again; that creates a proposal for them.",
        )
    tx.execute(update(Slice).where(Slice.id == found.id).values(bound_by=caller.id))
    details = {"dataset": of.id, "binding": checked}
    return _register_again(tx, caller, found, "slice.repaired", details, now, binding=checked)


def set_fast(tx: Transaction, caller: Caller, slug: str, name: str, now: datetime, *, fast: bool) -> Slice:
    """Let guests' conditions be planned together with a slice's row filter, or keep them apart again.

    The owner's affair, because the faster form tells of hidden rows. Nothing is issued until it is registered anew.

    Raises:
        Conflict: it is not ready, or is so already.
        Forbidden: the caller is not its owner.
    """
    of = dataset(tx, caller, slug)
    found = slice_of(tx, of.id, name)
    _require_say(tx, caller, of, found)
    if not kinds[found.kind].has_fast_form:
        raise Invalid("Only slices of tables have a faster form.", field="/fast")
    if of.status == "retired" or found.state != "ready" or bool(found.binding.get("fast")) == fast:
        raise Conflict(
            "The slice is not ready, or already has this form.", advice="Reload the page to see its current state."
        )
    binding = {**found.binding, "fast": fast} if fast else {k: v for k, v in found.binding.items() if k != "fast"}
    details = {"dataset": of.id, "fast": fast}
    return _register_again(tx, caller, found, "slice.fast_set", details, now, binding=binding)


def _require_say(tx: Transaction, caller: Caller, of: Dataset, found: Slice) -> None:
    if error := not_decider(tx, caller, of.id, ""):
        raise error
    if found.bound_by == caller.id and not is_owner(caller, of):
        raise Conflict("You defined this slice, so someone else must confirm it.", code="self_decision")


def _register_again(
    tx: Transaction,
    caller: Caller,
    found: Slice,
    kind: str,
    details: Mapping[str, Any],
    now: datetime,
    *,
    binding: Mapping[str, Any] | None = None,
) -> Slice:
    values = {"state": "registering", "state_detail": "", **({} if binding is None else {"binding": dict(binding)})}
    again = update(Slice).where(Slice.id == found.id, Slice.state == found.state)
    taken = tx.scalars(again.values(values).returning(Slice)).one()
    audit.record(tx, kind, actor=caller.subject, subject=found.id, now=now, details=details)
    notify(tx, REGISTERING_CHANNEL, found.id)
    return taken
