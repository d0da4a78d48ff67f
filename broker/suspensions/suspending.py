"""Suspending a vendor, a person or a dataset: what it would end (dry run), doing it, and lifting it again.

What became of each credential is told by `broker.suspensions.reports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Forbidden
from broker.identity.caller import Caller
from broker.identity.permissions import is_lead, require_admin
from broker.kinds.discovery import kinds
from broker.kinds.values import Ending
from broker.models import Dataset, Lease, Suspension
from broker.registry import datasets, people, vendors
from broker.registry.datasets import require_owner_or_admin
from broker.revocation import closing
from broker.revocation.counts import INSTALLATION, Counts, Target, What, count, latest


@dataclass(frozen=True, slots=True)
class DryRun:
    """What suspending would do now. `worst`: the longest declared exposure in seconds, None if offline use goes on.

    `latest`: by kind, when its last credential expires by itself.
    """

    target: Target
    counts: Counts
    endings: Mapping[str, Ending]
    worst: int | None
    remains: tuple[str, ...]
    latest: Mapping[str, datetime]


def find(tx: Transaction, caller: Caller, what: What, key: str) -> Target:
    """What is to be suspended.

    Raises:
        NotFound: there is none that the caller may see.
        Forbidden: suspending it is not for the caller.
    """
    if what == "vendor":
        require_admin(caller)
        vendor = vendors.vendor(tx, caller, key)
        return Target(what, vendor.id, vendor.id, vendor.name, vendor.status)
    if what == "person":
        person = people.person(tx, caller, key)
        if not (caller.is_admin or is_lead(caller, person.vendor_id)):
            raise Forbidden("Only admins and the lead of the same vendor can suspend people.")
        return Target(what, person.id, person.id, person.name or person.email or person.id, person.status)
    if what == INSTALLATION:
        require_admin(caller)
        return closing.target(tx)
    dataset = datasets.dataset(tx, caller, key)
    require_owner_or_admin(caller, dataset)
    return Target(what, dataset.id, dataset.slug, dataset.title, dataset.status)


def dry_run(tx: Transaction, caller: Caller, what: What, key: str) -> DryRun:
    """What suspending would end, how, how fast, and what would go on. Changes nothing.

    Raises:
        NotFound, Forbidden: as for `find`.
    """
    target = find(tx, caller, what, key)
    counts = count(tx, target)
    endings = {name: kinds[name].ending for name in counts.leases}
    worst = [ending.worst_case for ending in endings.values()]
    return DryRun(
        target,
        counts,
        endings,
        None if None in worst else max((seconds for seconds in worst if seconds is not None), default=0),
        _remains(target, endings),
        latest(tx, target),
    )


def suspend(
    tx: Transaction,
    caller: Caller,
    what: What,
    key: str,
    reason: str,
    now: datetime,
    *,
    message: str = "",
    expected: Mapping[str, Any] | None = None,
) -> tuple[Suspension, list[str]]:
    """Suspend at once; returns the suspension and the leases now ending, those newer than the dry run included.

    Args:
        message: what those shut out are told when they come back.
        expected: the counts of the dry run that was agreed to, for the report's comparison.

    Raises:
        NotFound, Forbidden: as for `find`.
        Conflict: it is not active, or too few admins would be left.
    """
    target = find(tx, caller, what, key)
    if what == INSTALLATION:
        return closing.close_manually(tx, caller, reason, now, expected=expected), []
    found = count(tx, target)
    do, _ = _ACTS[what]
    leases = do(tx, caller, target.key, reason, now)
    suspension = closing.begin_suspension(
        tx,
        target,
        found,
        words.prose(reason, "/reason"),
        len(leases),
        actor=caller.subject,
        now=now,
        message=words.prose(message, "/message", needed=False),
        expected=expected,
    )
    tx.execute(update(Lease).where(Lease.id.in_(leases)).values(suspension_id=suspension.id))
    return suspension, leases


def resume(tx: Transaction, caller: Caller, what: What, key: str, reason: str, now: datetime) -> Target:
    """Let it in again. No session and no lease comes back.

    Raises:
        NotFound, Forbidden: as for `find`.
        Conflict: it is not suspended.
    """
    target = find(tx, caller, what, key)
    if what == INSTALLATION:
        closing.reopen(tx, caller, reason, now)
        return find(tx, caller, what, key)
    _, undo = _ACTS[what]
    undo(tx, caller, target.key, reason, now)
    closing.note_resumed(tx, caller, what, target.id, now)
    return find(tx, caller, what, key)


_ACTS: Mapping[What, tuple[Callable[..., list[str]], Callable[..., object]]] = {
    "vendor": (vendors.suspend_vendor, vendors.resume_vendor),
    "person": (people.suspend_person, people.resume_person),
    "dataset": (datasets.suspend_dataset, datasets.resume_dataset),
}


def key_of(tx: Transaction, what: What, target_id: str) -> str:
    """What names a target in addresses, given its id."""
    if what != "dataset":
        return target_id
    return tx.execute(select(Dataset.slug).where(Dataset.id == target_id)).scalar_one_or_none() or target_id


def _remains(target: Target, endings: Mapping[str, Ending]) -> tuple[str, ...]:
    """What a suspension does not end, said before it is agreed to."""
    said = ["Copies of data that was already read."]
    offline = [name for name, ending in endings.items() if ending.worst_case is None]
    if offline:
        said.append(
            f"Use of a credential of kind {' or '.join(offline)} at services that verify it offline, until it expires."
        )
    said.append(
        {
            "vendor": "Grants are kept and valid again after resuming. Other vendors keep access to the same datasets.",
            "person": "Their grants are kept and are valid again after resuming. Colleagues keep their access.",
            "dataset": "Grants are kept and are valid again after resuming. People stay signed in.",
            "installation": "Grants are kept and are valid again once an admin opens Guestkey.",
        }[target.what]
    )
    return tuple(said)
