"""Who decides about access to a dataset: its owner, a steward, or an admin where there is neither; never oneself.

And which datasets a change would open something of to somebody at once: those whose owner must then agree. The whole
list of changes, and what each opens for whom, is docs/who-may-open-what.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select

from broker.base.database import Transaction
from broker.base.errors import Conflict, Forbidden, GuestkeyError
from broker.identity.caller import Caller
from broker.identity.permissions import STEWARD, stewards_of
from broker.models import Dataset, Event, Grant, Person, Request, Service, Slice
from broker.registry.proposals import active_admins


def not_decider(tx: Transaction, caller: Caller, dataset_id: str, role: str) -> GuestkeyError | None:
    """Why the caller has no say about who holds a role on a dataset; None: it has."""
    if caller.kind != "person" or caller.vendor_id is not None:
        return Forbidden("Only people of the organisation can decide requests.")
    of = tx.get_one(Dataset, dataset_id)
    if of.owner_id == caller.id:
        return None
    stewards = tx.scalars(stewards_of().where(Grant.dataset_id == of.id)).all()
    if caller.id in stewards:
        # Else stewards could make stewards, and the owner would lose sight of who decides.
        return Forbidden("Only the owner can decide who becomes a steward.") if role == STEWARD else None
    owner = tx.get(Person, of.owner_id) if of.owner_id else None
    owned = owner is not None and owner.status == "active"
    if owned or stewards:
        return Forbidden("Only the dataset's owner or a steward can decide this.", advice="Remind them.")
    without = "whose owner is suspended" if of.owner_id else "without an owner"
    if not caller.is_admin:
        return Forbidden(f"Only an admin can decide about a dataset {without}.", advice="Ask one.")
    if _added_by(tx, of.id) == caller.subject:
        return _self(f"You added this dataset {without}, so another admin must decide.")
    if caller.id in _arranged_by(tx, of):
        return _self(f"You bound slices or chose labels of this dataset {without}, so another admin must decide.")
    if of.owner_id and _suspended_by(tx, of.owner_id) == caller.subject:
        return _self("You suspended this dataset's owner, so another admin must decide.")
    return None


def why_not(tx: Transaction, caller: Caller, found: Request) -> GuestkeyError | None:
    """Why the caller may not decide about a request; None: it may."""
    if caller.kind != "person" or caller.vendor_id is not None:
        return Forbidden("Only people of the organisation can decide requests.")
    if caller.id in (found.person_id, found.for_person_id):
        return _self("You requested this, so another approver must decide.")
    if found.service_id and caller.id in _know_secret(tx, found.service_id):
        return _self("You have seen this service's secret, so another approver must decide.")
    return not_decider(tx, caller, found.dataset_id, found.role)


def barred(tx: Transaction, found: Request) -> set[str]:
    """The people who may not decide about a request because it is in a way their own; see `why_not`."""
    owner_id = tx.get_one(Dataset, found.dataset_id).owner_id
    shut_out_by = _suspended_by(tx, owner_id) if owner_id else None
    own = {f"person:{found.person_id}", _added_by(tx, found.dataset_id) or "", shut_out_by or ""}
    own |= _arranged_by(tx, tx.get_one(Dataset, found.dataset_id))
    know = _know_secret(tx, found.service_id) if found.service_id else set()
    return {name.removeprefix("person:") for name in own} | know


def admins_to_decide(tx: Transaction, found: Request, now: datetime) -> set[str]:
    """The admins who could decide about a request on a dataset without an active owner or steward."""
    return active_admins(tx, now) - barred(tx, found) - {found.for_person_id or ""}


def _self(detail: str) -> Conflict:
    return Conflict(detail, advice="Ask another owner, steward or admin.", code="self_decision")


def _know_secret(tx: Transaction, service_id: str) -> set[str]:
    """Who made a service, and who was last shown its secret."""
    found = tx.get_one(Service, service_id)
    return {found.created_by, found.secret_seen_by or found.created_by}


def _suspended_by(tx: Transaction, person_id: str) -> str | None:
    """Who suspended a person last; whoever shuts an owner out does not decide in their place."""
    query = select(Event.actor).where(Event.subject == person_id, Event.kind == "person.suspended")
    return tx.execute(query.order_by(Event.number.desc()).limit(1)).scalar_one_or_none()


def _arranged_by(tx: Transaction, of: Dataset) -> set[str]:
    """The people who chose what a dataset shows, or under which labels: none of them lets others see it besides."""
    there = (Slice.dataset_id == of.id, Slice.state != "retired", Slice.bound_by.is_not(None))
    bound = select(Slice.bound_by).where(*there)
    return {*of.labelled_by, *(id_ for id_ in tx.scalars(bound) if id_)}


def _added_by(tx: Transaction, dataset_id: str) -> str | None:
    query = select(Event.actor).where(Event.subject == dataset_id, Event.kind == "dataset.added")
    return tx.execute(query.limit(1)).scalar_one_or_none()


def datasets_opened(tx: Transaction, of: Dataset, kind: str, binding: Mapping[str, Any]) -> list[str]:
    """The ids of the datasets that a new slice of a dataset opens something of; none, where it opens nothing yet.

    The dataset itself, if somebody holds a grant on it or asks for one: they could use the slice, or be approved by
    somebody who does not know of it. Another dataset, if it shows the same place under other labels, or did before it
    was retired: fewer labels of one and more of another can both open more, as rules have it.
    """
    opened = {of.id} if _held_or_asked(tx, Grant.dataset_id == of.id, Request.dataset_id == of.id) else set()
    query = select(Dataset.id, Dataset.labels, Slice.binding).join(Slice, Slice.dataset_id == Dataset.id)
    same = (Slice.kind == kind, Slice.binding["connection"].astext == binding["connection"])
    # Retired ones too: else one admin could retire a dataset and offer its table anew under laxer labels.
    for dataset_id, labels, bound in tx.execute(query.where(*same, Dataset.id != of.id)):
        if set(labels) != set(of.labels) and _overlap(bound, binding):
            opened.add(dataset_id)
    return sorted(opened | {of.id}) if opened else []


def datasets_of_holder(tx: Transaction, *, team_id: str | None = None, service_id: str | None = None) -> list[str]:
    """The ids of the datasets a team or service holds a live grant on; of a service also those it is asked for on.

    Who is in a team is shown to whoever approves its request, and must be as they saw it; a secret leaves no trace.
    """
    granted = Grant.team_id == team_id if team_id else Grant.service_id == service_id
    held = tx.scalars(select(Grant.dataset_id).where(granted, _live_grant()))
    asked = select(Request.dataset_id).where(Request.service_id == service_id, _pending()) if service_id else None
    return sorted({*held, *(tx.scalars(asked) if asked is not None else ())})


def _held_or_asked(tx: Transaction, granted: ColumnElement[bool], asked: ColumnElement[bool]) -> bool:
    held = select(Grant.id).where(granted, _live_grant()).limit(1)
    waiting = select(Request.id).where(asked, _pending()).limit(1)
    return tx.execute(held).first() is not None or tx.execute(waiting).first() is not None


def _live_grant() -> ColumnElement[bool]:
    return Grant.revoked_at.is_(None) & (Grant.ends_at > func.clock_timestamp())


def _pending() -> ColumnElement[bool]:
    return (Request.state == "pending") & (Request.lapses_at > func.clock_timestamp())


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two bindings of one connection could show the same thing; what is unknown counts as the same."""
    if "table" in one and "table" in other:
        return (one.get("schema"), one["table"]) == (other.get("schema"), other["table"])
    if "bucket" in one and "bucket" in other:
        return one["bucket"] == other["bucket"] and _nested(str(one.get("prefix")), str(other.get("prefix")))
    if "directory" in one and "directory" in other:
        return _nested(f"{one['directory']}/", f"{other['directory']}/")
    return True


def _nested(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
