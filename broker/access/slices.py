"""Slices: naming a part of a dataset and where it lives. The worker makes it real, with the setup identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from broker import audit
from broker.access import ending, filter_check, words
from broker.access.datasets import dataset
from broker.access.permissions import missing, require_admin
from broker.caller import Caller
from broker.credentials import kinds
from broker.database import Transaction, notify
from broker.errors import Conflict, Invalid
from broker.models import Slice, new_id

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


def slices_of(tx: Transaction, dataset_ids: Sequence[str]) -> dict[str, list[Slice]]:
    """The slices of each of these datasets that are not retired, by name."""
    found: dict[str, list[Slice]] = {dataset_id: [] for dataset_id in dataset_ids}
    query = select(Slice).where(Slice.dataset_id.in_(dataset_ids), Slice.state != "retired").order_by(Slice.name)
    for slice_ in tx.scalars(query):
        found[slice_.dataset_id].append(slice_)
    return found


def add_slice(tx: Transaction, caller: Caller, slug: str, new: NewSlice, now: datetime) -> Slice:
    """Register a slice. It is `registering` until the worker has made it real, then `ready`, or `failed` and why.

    Admins only: a binding can name any table its connection reaches, also another dataset's.

    Raises:
        Invalid: something in it is unknown, malformed, or could widen what it shows.
        Conflict: the dataset has a slice of that name, is retired, or has too many.
    """
    require_admin(caller)
    of = dataset(tx, caller, slug)
    if of.status == "retired":
        raise Conflict("The dataset is retired.")
    kind = kinds.get(new.kind)
    if kind is None or not kind.at_backend:
        known = sorted(name for name, known in kinds.items() if known.at_backend)
        raise Invalid("No kind of that name serves slices.", field="/kind", advice=f"Use one of: {', '.join(known)}.")
    unserved = sorted(set(new.actions) - kind.actions)
    if unserved or not new.actions:
        raise Invalid(f"The kind {kind.name} serves {', '.join(sorted(kind.actions))}.", field="/actions")
    if tx.execute(select(func.count()).where(Slice.dataset_id == of.id)).scalar_one() >= _MOST:
        raise Conflict(f"A dataset has at most {_MOST} slices.")
    values = {
        "id": new_id("sl"),
        "dataset_id": of.id,
        "name": words.word(new.name, "/name"),
        "description": words.prose(new.description, "/description", needed=False),
        "kind": kind.name,
        "binding": filter_check.checked(tx, kind.name, kind.check_binding(new.binding)),
        "actions": sorted(set(new.actions)),
        "state": "registering",
        "state_detail": "",
        "created_at": now,
    }
    made = tx.scalars(
        insert(Slice).values(values).on_conflict_do_nothing(index_elements=["dataset_id", "name"]).returning(Slice)
    ).one_or_none()
    if made is None:
        raise Conflict("The dataset has, or had, a slice of that name.", advice="Choose another name.")
    details = {"dataset": of.id, "name": made.name, "kind": made.kind, "binding": made.binding}
    audit.record(tx, "slice.added", actor=caller.subject, subject=made.id, now=now, details=details)
    notify(tx, REGISTERING_CHANNEL, made.id)
    return made


def retry_slice(tx: Transaction, caller: Caller, slug: str, name: str, now: datetime) -> Slice:
    """Have a slice that failed registered again, once what kept it from that is mended.

    Raises:
        Conflict: it has not failed.
    """
    require_admin(caller)
    of = dataset(tx, caller, slug)
    found = _found(tx, of.id, name)
    if of.status == "retired" or found.state != "failed":
        raise Conflict("Only a slice that failed can be tried again.", advice="Reload the page to see how it stands.")
    again = update(Slice).where(Slice.id == found.id, Slice.state == "failed")
    tried = tx.scalars(again.values(state="registering", state_detail="").returning(Slice)).one()
    audit.record(tx, "slice.retried", actor=caller.subject, subject=found.id, now=now, details={"dataset": of.id})
    notify(tx, REGISTERING_CHANNEL, found.id)
    return tried


def retire_slice(tx: Transaction, caller: Caller, slug: str, name: str, reason: str, now: datetime) -> list[str]:
    """Take a slice away; returns the ids of the leases now ending."""
    require_admin(caller)
    of = dataset(tx, caller, slug)
    found = _found(tx, of.id, name)
    return ending.retire_slice(tx, found.id, caller, words.prose(reason, "/reason"), now)


def _found(tx: Transaction, dataset_id: str, name: str) -> Slice:
    named = select(Slice).where(Slice.dataset_id == dataset_id, Slice.name == words.word(name, "/name"))
    found = tx.scalars(named.with_for_update()).one_or_none()
    if found is None or found.state == "retired":
        raise missing("slice")
    return found
