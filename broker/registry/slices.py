"""Slices: naming a part of a dataset and where it lives, and changing what is there: confirmed, repaired, made faster.

The worker makes a slice real, with the setup identity.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from broker.base import words
from broker.base.database import Transaction, notify
from broker.base.errors import Conflict, Forbidden, Invalid
from broker.base.ids import new_id
from broker.identity.caller import Caller
from broker.identity.nouns import Noun
from broker.identity.permissions import everything_or_nothing, missing, require_admin
from broker.kinds.discovery import kinds
from broker.log import audit
from broker.models import CatalogueTable, Dataset, Lease, Proposal, Slice
from broker.registry import proposals
from broker.registry.approvers import datasets_opened, not_decider
from broker.registry.datasets import dataset, is_owner
from broker.revocation import ending

REGISTERING_CHANNEL = "guestkey_registering"
_MOST = 100


@dataclass(frozen=True, slots=True)
class NewSlice:
    """What a new slice is to be; its kind checks the binding."""

    name: str
    description: str
    kind: str
    binding: Mapping[str, Any]
    actions: tuple[str, ...]


SLICES = Noun(
    "slice",
    "slices",
    "sl",
    Slice,
    seen=everything_or_nothing,
    called=select(Slice.id, func.split_part(Slice.name, "~", 1) + " of " + Dataset.slug).join(
        Dataset, Dataset.id == Slice.dataset_id
    ),
    plain=("added", "retired"),
    events={
        "slice.changed": "{who} found that the table behind the slice {whom} changed, and closed the slice: {detail}",
        "slice.confirmed": "{who} confirmed the slice {whom} with its table as it is now.",
        "slice.failed": "{who} could not set up the slice {whom} at its backend.",
        "slice.fast_set": "{who} changed how the slice {whom} is read: faster form, {fast}.",
        "slice.ready": "{who} set up the slice {whom} at its backend.",
        "slice.remade": "{who} set up the slice {whom} again for this version.",
        "slice.removed": "{who} removed the retired slice {whom} from its backend.",
        "slice.repaired": "{who} changed the binding of the slice {whom}.",
        "slice.retried": "{who} asked to set up the slice {whom} again.",
    },
)


def slices_of(tx: Transaction, dataset_ids: Sequence[str]) -> dict[str, list[Slice]]:
    """The slices of each of these datasets that are not retired, by name."""
    found: dict[str, list[Slice]] = {dataset_id: [] for dataset_id in dataset_ids}
    query = select(Slice).where(Slice.dataset_id.in_(dataset_ids), Slice.state != "retired").order_by(Slice.name)
    for slice_ in tx.scalars(query):
        found[slice_.dataset_id].append(slice_)
    return found


def slice_names(tx: Transaction, ids: Collection[str]) -> dict[str, str]:
    """What these slices are called within their datasets, by id."""
    return dict(tx.execute(select(Slice.id, Slice.name).where(Slice.id.in_(ids))).all())


def add_slice(
    tx: Transaction,
    caller: Caller,
    slug: str,
    new: NewSlice,
    now: datetime,
    *,
    lifetime: timedelta = proposals.LIFETIME,
) -> Slice | Proposal:
    """Register a slice. It is `registering` until the worker has made it real, then `ready`, or `failed` and why.

    Admins only: a binding can name any table its connection reaches, also another dataset's. Where that could open
    something to somebody at once (`approvers.datasets_opened`), it becomes a proposal for the owner or a second admin.

    Raises:
        Invalid: something in it is unknown, malformed, or could widen what it shows.
        Conflict: the dataset has a slice of that name, is retired, or has too many.
    """
    require_admin(caller)
    of = dataset(tx, caller, slug)
    values = _checked(tx, of, new)
    refuse_fast(caller, of, values["binding"])
    # Grants, requests and slices of the dataset that come meanwhile wait for this, or are seen below.
    tx.execute(select(Dataset.id).where(Dataset.id == of.id).with_for_update())
    concerned = datasets_opened(tx, of, new.kind, values["binding"])
    if not concerned:
        return _insert(tx, caller.subject, values | {"bound_by": caller.id}, now)
    if tx.execute(select(Slice.id).where(Slice.dataset_id == of.id, Slice.name == values["name"])).first():
        raise _name_taken()
    details = {"datasets": concerned, "dataset": of.id, **asdict(new), "binding": values["binding"]}
    details["actions"] = values["actions"]
    return proposals.propose(tx, "add_slice", of.id, details, caller, now, lifetime=lifetime)


def refuse_fast(caller: Caller, of: Dataset, binding: Mapping[str, Any]) -> None:
    """The faster form of a slice tells of hidden rows, so nobody chooses it with the binding but the owner.

    Raises:
        Forbidden: somebody else did.
    """
    if binding.get("fast") and not is_owner(caller, of):
        raise Forbidden(
            "Only the dataset's owner can choose the faster form of a slice, because it reveals hidden rows.",
            advice="Leave `fast` out; the people who decide about the dataset can set it once the slice exists.",
        )


def perform_add(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `add_slice`; see `add_slice`, which raises the same."""
    details = agreed.details
    of = tx.scalars(select(Dataset).where(Dataset.id == details["dataset"]).with_for_update()).one()
    new = NewSlice(
        details["name"], details["description"], details["kind"], details["binding"], tuple(details["actions"])
    )
    values = _checked(tx, of, new) | {"bound_by": agreed.proposed_by}
    _insert(tx, agreed.approver, values, now, proposed_by=agreed.proposed_by)


def _checked(tx: Transaction, of: Dataset, new: NewSlice) -> dict[str, Any]:
    if of.status == "retired":
        raise Conflict("The dataset is retired.")
    kind = kinds.get(new.kind)
    if kind is None or not kind.at_backend:
        known = sorted(name for name, known in kinds.items() if known.at_backend)
        raise Invalid(
            "There is no kind of that name for slices.", field="/kind", advice=f"Use one of: {', '.join(known)}."
        )
    unserved = sorted(set(new.actions) - kind.actions)
    if unserved or not new.actions:
        raise Invalid(f"The kind {kind.name} serves {', '.join(sorted(kind.actions))}.", field="/actions")
    if tx.execute(select(func.count()).where(Slice.dataset_id == of.id)).scalar_one() >= _MOST:
        raise Conflict(f"A dataset has at most {_MOST} slices.")
    return {
        "dataset_id": of.id,
        "name": words.word(new.name, "/name"),
        "description": words.prose(new.description, "/description", needed=False),
        "kind": kind.name,
        "binding": checked_filters(tx, kind.name, kind.check_binding(new.binding)),
        "actions": sorted(set(new.actions)),
    }


def _insert(tx: Transaction, actor: str, values: Mapping[str, Any], now: datetime, *, proposed_by: str = "") -> Slice:
    row = {**values, "id": new_id("sl"), "state": "registering", "state_detail": "", "created_at": now}
    added = insert(Slice).values(row).on_conflict_do_nothing(index_elements=["dataset_id", "name"])
    made = tx.scalars(added.returning(Slice)).one_or_none()
    if made is None:
        raise _name_taken()
    details = {"dataset": made.dataset_id, "name": made.name, "kind": made.kind, "binding": made.binding}
    if proposed_by:
        details["proposed_by"] = proposed_by
    audit.record(tx, "slice.added", actor=actor, subject=made.id, now=now, details=details)
    notify(tx, REGISTERING_CHANNEL, made.id)
    return made


def _name_taken() -> Conflict:
    return Conflict("The dataset has, or had, a slice with that name.", advice="Choose another name.")


def retry_slice(tx: Transaction, caller: Caller, slug: str, name: str, now: datetime) -> Slice:
    """Register a slice that failed again, once the cause is fixed.

    Raises:
        Conflict: it has not failed.
    """
    require_admin(caller)
    of = dataset(tx, caller, slug)
    found = slice_of(tx, of.id, name)
    if of.status == "retired" or found.state != "failed":
        raise Conflict(
            "Only a slice that failed can be tried again.", advice="Reload the page to see its current state."
        )
    return _register_again(tx, caller, found, "slice.retried", {"dataset": of.id}, now)


def retire_slice(tx: Transaction, caller: Caller, slug: str, name: str, reason: str, now: datetime) -> list[str]:
    """Take a slice away; returns the ids of the leases now ending.

    Its name is free again, unless a credential was ever issued from it: the record of those names it.
    """
    require_admin(caller)
    of = dataset(tx, caller, slug)
    found = slice_of(tx, of.id, name)
    ended = ending.retire_slice(tx, found.id, caller, words.prose(reason, "/reason"), now)
    used = tx.execute(select(Lease.id).where(Lease.dataset_id == of.id, Lease.slice_id == found.id).limit(1)).first()
    if used is None:
        # No name that anybody can give has such a character.
        tx.execute(update(Slice).where(Slice.id == found.id).values(name=f"{found.name[:32]}~{found.id[-26:]}"))
    return ended


def slice_of(tx: Transaction, dataset_id: str, name: str) -> Slice:
    """A slice of a dataset by its name, locked.

    Raises:
        NotFound: there is none, or it was taken away.
    """
    named = select(Slice).where(Slice.dataset_id == dataset_id, Slice.name == words.word(name, "/name"))
    found = tx.scalars(named.with_for_update()).one_or_none()
    if found is None or found.state == "retired":
        raise missing("slice")
    return found


def checked_filters(tx: Transaction, kind: str, binding: Mapping[str, Any]) -> dict[str, Any]:
    """A binding with its filters' values as their columns' types say, where its table was read.

    Elsewhere they are judged when the slice is registered, and it fails.

    Raises:
        Invalid: a value means nothing, or not one thing exactly, beside its column.
    """
    if not kinds[kind].has_catalogue or not binding["rows"]:
        return dict(binding)
    found = tx.get(CatalogueTable, (binding["connection"], binding["schema"], binding["table"]))
    return dict(kinds[kind].with_column_types(binding, found.columns) if found else binding)


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
    checked = checked_filters(tx, found.kind, kinds[found.kind].check_binding(binding))
    refuse_fast(caller, of, checked)
    # Grants, requests and slices of the dataset that come meanwhile wait for this, or are seen below.
    tx.execute(select(Dataset.id).where(Dataset.id == of.id).with_for_update())
    if datasets_opened(tx, of, found.kind, checked):
        raise Conflict(
            "This could give people access at once, so it needs the owner or a second admin.",
            advice="Retire the slice and add it again; that creates a proposal for them.",
        )
    details = {"dataset": of.id, "binding": checked}
    return _register_again(tx, caller, found, "slice.repaired", details, now, binding=checked, bound_by=caller.id)


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
    tx: Transaction, caller: Caller, found: Slice, kind: str, details: Mapping[str, Any], now: datetime, **changed: Any
) -> Slice:
    again = update(Slice).where(Slice.id == found.id, Slice.state == found.state)
    values = {"state": "registering", "state_detail": "", **changed}
    taken = tx.scalars(again.values(values).returning(Slice)).one()
    audit.record(tx, kind, actor=caller.subject, subject=found.id, now=now, details=details)
    notify(tx, REGISTERING_CHANNEL, found.id)
    return taken
