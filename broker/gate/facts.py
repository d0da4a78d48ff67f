"""Gathering what the gate decides on, in one round trip, with the rows it rests on locked until commit.

Whoever ends a grant, person, vendor or dataset updates that row first and marks its leases afterwards. The share
locks taken here make one of the two wait for the other, so neither a decision nor an ending can miss its peer.
Nothing here decides; nothing outside the facts may influence the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.policies import CallerFacts, DatasetFacts, Facts, GrantFacts, SliceFacts, VendorFacts


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for: `dataset` is a slug or an id, `lifetime` is in seconds (None: as the rule allows).

    `kind` None means the slice's own; `public_key` is what kinds with a proof ask their guest to bring.
    """

    dataset: str
    action: str = "read"
    slice: str | None = None
    kind: str | None = None
    lifetime: int | None = None
    public_key: str | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """The facts, the moment they were read (PostgreSQL's clock), and the records behind them as plain mappings."""

    facts: Facts
    now: datetime
    revision: int | None
    dataset: Mapping[str, Any] | None
    slices: Mapping[str, Mapping[str, Any]]


_GATHER = """
WITH policy AS (SELECT revision, closed_at, held_before FROM guestkey.policy_in_force {lock}),
person AS (SELECT id, status, vendor_id FROM guestkey.person WHERE id = :person {own}),
service AS (
  SELECT id, status, vendor_id, coalesce(secret_seen_by, created_by) AS person FROM guestkey.service
   WHERE id = :service {own}),
party AS (SELECT vendor_id FROM person UNION ALL SELECT vendor_id FROM service),
vendor AS (SELECT id, status FROM guestkey.vendor WHERE id = (SELECT vendor_id FROM party) {lock}),
dataset AS (
  SELECT id, slug, title, status, labels, labelled_by, retention_until, owner_id FROM guestkey.dataset
   WHERE id = :dataset OR slug = :dataset {lock}),
offer AS (
  SELECT id FROM guestkey.offer
   WHERE dataset_id = (SELECT id FROM dataset) AND vendor_id = (SELECT vendor_id FROM party)
     AND ended_at IS NULL {lock}),
slices AS (
  SELECT id, name, kind, binding, bound_by, actions, state FROM guestkey.slice
   WHERE dataset_id = (SELECT id FROM dataset) AND state <> 'retired'),
teams AS (SELECT team_id FROM guestkey.team_member WHERE person_id = :person {lock}),
grants AS (
  SELECT id, role, person_id, team_id, service_id, slice_name, max_lifetime, starts_at, ends_at,
         coalesce(confirmed_at, created_at) AS stands_since
    FROM guestkey."grant"
   WHERE dataset_id = (SELECT id FROM dataset) AND revoked_at IS NULL
     AND (person_id = :person OR service_id = :service OR team_id = ANY (SELECT team_id FROM teams)) {lock})
SELECT (SELECT to_jsonb(policy) FROM policy) AS policy,
       (SELECT to_jsonb(person) FROM person) AS person,
       (SELECT to_jsonb(service) FROM service) AS service,
       (SELECT to_jsonb(vendor) FROM vendor) AS vendor,
       (SELECT to_jsonb(dataset) FROM dataset) AS dataset,
       (SELECT count(*) FROM offer) AS offers,
       (SELECT coalesce(jsonb_agg(to_jsonb(slices)), '[]') FROM slices) AS slices,
       (SELECT coalesce(jsonb_agg(to_jsonb(grants)), '[]') FROM grants) AS grants,
       -- Last, so that the clock is read after every lock is held.
       clock_timestamp() AS now
"""
# The holder's own row is locked against itself: two issues of one holder are counted one after the other.
_LOCKING = text(_GATHER.format(lock="FOR SHARE", own="FOR NO KEY UPDATE"))
_READING = text(_GATHER.format(lock="", own=""))


def gather(tx: Transaction, caller: Caller, ask: Ask, *, locking: bool = True) -> Gathered:
    """Read the facts about one caller and one dataset, as of now.

    With `locking`, the rows behind the facts stay as they are until the transaction ends; without it the answer is
    only good for showing.
    """
    parameters = {
        "person": caller.id if caller.kind == "person" else None,
        "service": caller.id if caller.kind == "service" else None,
        "dataset": ask.dataset,
    }
    row = tx.execute(_LOCKING if locking else _READING, parameters).mappings().one()
    party, policy = row["person"] or row["service"], row["policy"] or {}
    held_before = _moment(policy.get("held_before"))
    slices = {slice_["name"]: slice_ for slice_ in row["slices"]}
    facts = Facts(
        caller=_caller(caller, party) if party else None,
        vendor=VendorFacts(id=row["vendor"]["id"], status=row["vendor"]["status"]) if row["vendor"] else None,
        dataset=_dataset(row["dataset"], slices, offered=row["offers"] > 0) if row["dataset"] else None,
        grants=tuple(_grant(grant, held_before) for grant in sorted(row["grants"], key=lambda grant: str(grant["id"]))),
        action=ask.action,
        slice=ask.slice,
        kind=ask.kind,
        lifetime=ask.lifetime,
        closed_at=_moment(policy.get("closed_at")),
    )
    return Gathered(facts, row["now"], policy.get("revision"), row["dataset"], slices)


def _caller(caller: Caller, party: Mapping[str, Any]) -> CallerFacts:
    return CallerFacts(
        subject=caller.subject,
        status=party["status"],
        vendor=party["vendor_id"],
        factor_at=caller.factor_at,
        factor_enrolled=caller.factor_enrolled,
        address=caller.address,
        person=party.get("person") or party["id"],
    )


def _dataset(row: Mapping[str, Any], slices: Mapping[str, Mapping[str, Any]], *, offered: bool) -> DatasetFacts:
    return DatasetFacts(
        id=row["id"],
        slug=row["slug"],
        status=row["status"],
        labels=frozenset(row["labels"]),
        retention_until=_moment(row["retention_until"]),
        offered=offered,
        labelled_by=frozenset(row["labelled_by"]),
        slices=tuple(
            SliceFacts(
                name=name,
                ready=slice_["state"] == "ready",
                actions=frozenset(slice_["actions"]),
                bound_by=slice_["bound_by"],
                changed=slice_["state"] == "changed",
            )
            for name, slice_ in sorted(slices.items())
        ),
    )


def _grant(row: Mapping[str, Any], held_before: datetime | None) -> GrantFacts:
    held = held_before is not None and datetime.fromisoformat(row["stands_since"]) < held_before
    for prefix, column in (("person", "person_id"), ("team", "team_id"), ("service", "service_id")):
        if row[column]:
            holder = f"{prefix}:{row[column]}"
    return GrantFacts(
        id=row["id"],
        role=f"role:{row['role']}",
        holder=holder,
        starts_at=datetime.fromisoformat(row["starts_at"]),
        ends_at=datetime.fromisoformat(row["ends_at"]),
        status="held" if held else "active",
        slice=row["slice_name"],
        max_lifetime=row["max_lifetime"],
    )


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
