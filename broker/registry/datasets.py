"""Datasets: making one, describing it, offering it to vendors, opening or closing it. Slices have their own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert

from broker.base import words
from broker.base.database import Transaction, notify
from broker.base.errors import Conflict, Forbidden, Invalid
from broker.base.ids import new_id
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Menu, Noun, Search
from broker.identity.permissions import datasets_seen, missing, require_admin, sees_everything
from broker.log import audit
from broker.models import Dataset, Offer, Person, Proposal
from broker.registry import proposals
from broker.registry.vendors import vendor
from broker.revocation import ending
from broker.runtime import chores

NATURES = ("data", "model")
CHANGED_CHANNEL = "guestkey_changed"
_OPENING = ("labels", "owner_id", "retention_until")


@dataclass(frozen=True, slots=True)
class NewDataset:
    """What a new dataset is to be; validated when it is added."""

    slug: str
    title: str
    description: str
    nature: str
    labels: tuple[str, ...]
    owner_id: str | None
    retention_until: datetime | None


@dataclass(frozen=True, slots=True)
class DatasetChange:
    """What is to be different; None leaves a field as it is. `forever` takes the retention's end away."""

    title: str | None = None
    description: str | None = None
    labels: tuple[str, ...] | None = None
    owner_id: str | None = None
    retention_until: datetime | None = None
    forever: bool = False


DATASETS = Noun(
    "dataset",
    "datasets",
    "ds",
    Dataset,
    about="Datasets, their slices, and the vendors to whom they are offered.",
    menu=Menu("Datasets"),
    display=Display(
        columns="dataset=slug!, title, status, labels",
        none="No datasets yet: none is offered to you. Ask your contact at the organisation.",
        details=(
            "dataset=slug, id, title, description, nature, status, labels, owner, kept until=retention_until@, "
            "roles you can request=roles"
        ),
        key="slug",
    ),
    seen=datasets_seen,
    called=Dataset.slug,
    filters=(Filter("status", Literal["active", "suspended", "retired"], Dataset.status),),
    search=Search((Dataset.slug, Dataset.title), lambda found: (found.slug, found.title, found.slug)),
    plain=("added", "changed", "resumed", "retired", "suspended"),
    events={
        "dataset.made": "{who} added the dataset {whom}.",
        "offer.made": "{who} offered the dataset {dataset} to {vendor}.",
        "offer.withdrawn": "{who} withdrew the dataset {dataset} from {vendor}.",
    },
)


def dataset(tx: Transaction, caller: Caller, slug: str) -> Dataset:
    """One dataset, by its slug or id.

    Raises:
        NotFound: there is none that the caller may see.
    """
    found = None
    if slug.isascii() and slug.replace("-", "").replace("_", "").isalnum():
        named = (Dataset.slug == slug) | (Dataset.id == slug)
        found = tx.scalars(select(Dataset).where(named, datasets_seen(caller))).one_or_none()
    if found is None:
        raise missing("dataset")
    return found


def is_owner(caller: Caller, found: Dataset) -> bool:
    """Whether the caller, a person of the organisation, owns the dataset."""
    return caller.kind == "person" and caller.vendor_id is None and found.owner_id == caller.id


def sees_binding(caller: Caller, found: Dataset) -> bool:
    """Whether the caller may see where a dataset's slices live: its owner, admins and auditors."""
    return sees_everything(caller) or is_owner(caller, found)


def require_sees_binding(caller: Caller, found: Dataset) -> None:
    """Refuse everybody but the owner, admins and auditors."""
    if not sees_binding(caller, found):
        raise Forbidden("Only the dataset's owner, admins and auditors can see this.", advice="Ask one of them.")


def may_change(caller: Caller, found: Dataset) -> bool:
    """Whether the caller is the owner or an admin."""
    return caller.is_admin or is_owner(caller, found)


def require_owner_or_admin(caller: Caller, found: Dataset) -> None:
    """Refuse everybody but the owner and admins."""
    if not may_change(caller, found):
        raise Forbidden("Only the dataset's owner and admins can do this.", advice="Ask one of them.")


def add_dataset(tx: Transaction, caller: Caller, new: NewDataset, now: datetime) -> Dataset:
    """Make a dataset; nobody reaches it until it has slices, offers and grants.

    Raises:
        Conflict: the slug is taken, or the caller would be its owner: then one person could open it alone.
    """
    require_admin(caller)
    if new.nature not in NATURES:
        raise Invalid(f"The nature is one of {', '.join(NATURES)}.", field="/nature")
    values = {
        "id": new_id("ds"),
        "slug": words.slug(new.slug, "/slug"),
        "title": words.name(new.title, "/title", longest=words.TITLE_LENGTH),
        "description": words.prose(new.description, "/description", needed=False),
        "nature": new.nature,
        "labels": words.labels(new.labels, "/labels"),
        "labelled_by": [caller.id],
        "owner_id": _checked_owner(tx, caller, new.owner_id) if new.owner_id else None,
        "retention_until": _checked_retention(new.retention_until, now) if new.retention_until else None,
        "status": "active",
        "created_at": now,
    }
    added = insert(Dataset).values(values).on_conflict_do_nothing(index_elements=["slug"])
    made = tx.scalars(added.returning(Dataset)).one_or_none()
    if made is None:
        raise Conflict("A dataset with that slug already exists.", advice="Choose another slug.")
    details = {"slug": made.slug, "labels": made.labels, "owner": made.owner_id, "nature": made.nature}
    audit.record(tx, "dataset.added", actor=caller.subject, subject=made.id, now=now, details=details)
    return made


def change_dataset(
    tx: Transaction,
    caller: Caller,
    slug: str,
    change: DatasetChange,
    now: datetime,
    *,
    lifetime: timedelta = proposals.LIFETIME,
) -> Dataset | Proposal:
    """Describe a dataset anew. The owner or an admin changes the text and ends the retention sooner.

    Owner, labels and a longer retention decide who gets what: those become a proposal that takes two of the owner and
    the admins. Live leases are decided again afterwards.

    Raises:
        Forbidden: neither the owner nor an admin.
        Invalid: nothing is to be changed, or something in it is unusable.
        Conflict: it is so already, or the caller would become the owner.
    """
    found = dataset(tx, caller, slug)
    require_owner_or_admin(caller, found)
    values = _changed_values(tx, caller, change, now)
    if not values:
        raise Invalid("No change was given.", advice="Give at least one field.")
    if "owner_id" in values and found.owner_id == values["owner_id"]:
        raise Conflict("This person already owns the dataset.")
    if not _opens(found, values):
        return _change(tx, caller.subject, found.id, values, now)
    if found.status == "retired":
        raise Conflict("The dataset is retired.")
    details = {"datasets": [found.id], **{name: _json(value) for name, value in values.items()}}
    before = {f"{name}_before": _json(getattr(found, name)) for name in _OPENING if name in values}
    return proposals.propose(tx, "change_dataset", found.id, details | before, caller, now, lifetime=lifetime)


def perform_change(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `change_dataset`; see `change_dataset`.

    Raises:
        Conflict: the dataset was retired meanwhile.
        Invalid: the new owner is no active person of the organisation any more.
    """
    details = agreed.details
    dataset_id = details["datasets"][0]
    found = tx.scalars(select(Dataset).where(Dataset.id == dataset_id).with_for_update()).one()
    if found.status == "retired":
        raise Conflict("The dataset is retired.")
    values: dict[str, Any] = {
        name: details[name] for name in ("title", "description", "labels", "owner_id") if name in details
    }
    if "owner_id" in values:
        _check_can_own(tx, values["owner_id"])
    if "retention_until" in details:
        until = details["retention_until"]
        values["retention_until"] = _checked_retention(datetime.fromisoformat(until), now) if until else None
    if "labels" in values:
        # Whoever agreed to these labels and had chosen the earlier ones has still chosen them.
        values["labelled_by"] = sorted({agreed.proposed_by} | ({agreed.decided_by} & set(found.labelled_by)))
    _change(tx, agreed.approver, dataset_id, values, now, proposed_by=agreed.proposed_by)


def suspend_dataset(tx: Transaction, caller: Caller, slug: str, reason: str, now: datetime) -> list[str]:
    """Close a dataset to everybody; returns the ids of the leases now ending."""
    found = dataset(tx, caller, slug)
    require_owner_or_admin(caller, found)
    return ending.suspend_dataset(tx, found.id, caller, words.prose(reason, "/reason"), now)


def retire_dataset(tx: Transaction, caller: Caller, slug: str, reason: str, now: datetime) -> list[str]:
    """Close a dataset for good; returns the ids of the leases now ending."""
    require_admin(caller)
    found = dataset(tx, caller, slug)
    return ending.suspend_dataset(tx, found.id, caller, words.prose(reason, "/reason"), now, status="retired")


def resume_dataset(tx: Transaction, caller: Caller, slug: str, reason: str, now: datetime) -> Dataset:
    """Open a suspended dataset again; no lease comes back."""
    found = dataset(tx, caller, slug)
    require_owner_or_admin(caller, found)
    return DATASETS.reopen(tx, caller, found, "dataset.resumed", words.prose(reason, "/reason"), now)


def _changed_values(tx: Transaction, caller: Caller, change: DatasetChange, now: datetime) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if change.title is not None:
        values["title"] = words.name(change.title, "/title", longest=words.TITLE_LENGTH)
    if change.description is not None:
        values["description"] = words.prose(change.description, "/description", needed=False)
    if change.labels is not None:
        values["labels"] = words.labels(change.labels, "/labels")
    if change.owner_id is not None:
        values["owner_id"] = _checked_owner(tx, caller, change.owner_id)
    if change.retention_until is not None:
        values["retention_until"] = _checked_retention(change.retention_until, now)
    if change.forever:
        values["retention_until"] = None
    return values


def _opens(found: Dataset, values: Mapping[str, Any]) -> bool:
    """Whether a change could let somebody at data who could not before."""
    if "labels" in values or "owner_id" in values:
        return True
    if "retention_until" not in values or found.retention_until is None:
        return False
    return values["retention_until"] is None or values["retention_until"] > found.retention_until


def _change(
    tx: Transaction, actor: str, dataset_id: str, values: Mapping[str, Any], now: datetime, *, proposed_by: str = ""
) -> Dataset:
    tx.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update())
    changed = tx.scalars(update(Dataset).where(Dataset.id == dataset_id).values(values).returning(Dataset)).one()
    said = {name: _json(value) for name, value in values.items() if name not in ("title", "description")}
    details = {"fields": sorted(values.keys() - {"labelled_by"}), **said}
    if proposed_by:
        details["proposed_by"] = proposed_by
    audit.record(tx, "dataset.changed", actor=actor, subject=dataset_id, now=now, details=details)
    chores.at_once(tx, chores.REDECIDE)
    notify(tx, CHANGED_CHANNEL, "dataset")
    return changed


def _checked_owner(tx: Transaction, caller: Caller, owner_id: str) -> str:
    # An owner decides requests: whoever could name themselves would need nobody else.
    if owner_id == caller.id:
        raise Conflict("You cannot make yourself an owner.", advice="Ask another admin.", code="self_decision")
    return _check_can_own(tx, owner_id)


def _check_can_own(tx: Transaction, owner_id: str) -> str:
    active = Person.vendor_id.is_(None) & (Person.status == "active")
    if tx.execute(select(Person.id).where(Person.id == owner_id, active)).first() is None:
        raise Invalid("An owner must be an active person of the organisation.", field="/owner")
    return owner_id


def _checked_retention(until: datetime, now: datetime) -> datetime:
    if until.tzinfo is None:
        raise Invalid("A time needs its zone: 2030-01-01T00:00:00Z.", field="/retention_until")
    if until <= now:
        raise Invalid(
            "The end of the retention is in the past.", field="/retention_until", advice="Retire the dataset instead."
        )
    return until


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def offers_of(tx: Transaction, caller: Caller, found: Dataset) -> list[Offer]:
    """The live offers of a dataset the caller sees; a vendor's people see none but their own vendor's.

    Raises:
        Forbidden: a service of the organisation.
    """
    query = select(Offer).where(Offer.dataset_id == found.id, Offer.ended_at.is_(None)).order_by(Offer.id)
    if caller.vendor_id is not None:
        query = query.where(Offer.vendor_id == caller.vendor_id)
    elif caller.kind != "person":
        raise Forbidden("Services cannot see offers.")
    return list(tx.scalars(query))


def make_offer(tx: Transaction, caller: Caller, slug: str, vendor_id: str, now: datetime) -> Offer:
    """Show a dataset to a vendor.

    Raises:
        Conflict: it is offered already, is retired, or the vendor is offboarded.
    """
    found = dataset(tx, caller, slug)
    require_owner_or_admin(caller, found)
    to = vendor(tx, caller, vendor_id)
    if to.status == "offboarded" or found.status == "retired":
        raise Conflict("A retired dataset cannot be offered, nor can a dataset be offered to an offboarded vendor.")
    offer = insert(Offer).values(id=new_id("of"), dataset_id=found.id, vendor_id=to.id, made_by=caller.id, made_at=now)
    once = offer.on_conflict_do_nothing(
        index_elements=["dataset_id", "vendor_id"], index_where=text("ended_at IS NULL")
    )
    made = tx.scalars(once.returning(Offer)).one_or_none()
    if made is None:
        raise Conflict("This dataset is already offered to that vendor.")
    details = {"dataset": found.id, "vendor": to.id}
    audit.record(tx, "offer.made", actor=caller.subject, subject=made.id, now=now, details=details)
    return made


def withdraw_offer(tx: Transaction, caller: Caller, slug: str, vendor_id: str, now: datetime) -> list[str]:
    """Take a dataset out of a vendor's sight; returns the ids of the leases now ending."""
    found = dataset(tx, caller, slug)
    require_owner_or_admin(caller, found)
    return ending.withdraw_offer(tx, found.id, vendor(tx, caller, vendor_id).id, caller, now)
