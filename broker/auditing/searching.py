"""Finding something the caller may see: by its id, the beginning of its name, or a lease's name at its backend."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from broker.auditing.reading_events import one_event
from broker.base.database import Transaction
from broker.base.errors import Forbidden, NotFound
from broker.base.ids import is_id
from broker.identity.caller import Caller
from broker.identity.permissions import (
    datasets_seen,
    people_seen,
    require_admin,
    sees_everything,
    teams_seen,
)
from broker.kinds.names import lease_of
from broker.leases import holdings
from broker.models import Dataset, Person, Team, Vendor
from broker.registry import datasets, people, teams, vendors
from broker.requests import requests

MOST = 20
LONGEST = 100


@dataclass(frozen=True, slots=True)
class Hit:
    """Something found: what it is, its id (a dataset's slug), what it is called, and what tells it from others."""

    what: str
    id: str
    name: str
    beside: str = ""


def search(tx: Transaction, caller: Caller, text: str) -> list[Hit]:
    """At most `MOST` of each sort: by exact id, or by the beginning of a name, in any case."""
    text = " ".join(text.split())[:LONGEST]
    if not text:
        return []
    bare = lease_of(text.rpartition(":")[2].lower())
    return _by_id(tx, caller, bare) if is_id(bare) else _by_name(tx, caller, text.lower())


def _by_name(tx: Transaction, caller: Caller, text: str) -> list[Hit]:
    of = tx.scalars(
        select(Dataset).where(datasets_seen(caller), _begins(text, Dataset.slug, Dataset.title)).limit(MOST)
    )
    hits = [Hit("dataset", item.slug, item.title, item.slug) for item in of]
    if caller.is_admin:
        found = tx.scalars(select(Vendor).where(_begins(text, Vendor.name)).limit(MOST))
        hits += [Hit("vendor", item.id, item.name, item.status) for item in found]
    if sees_everything(caller) or "lead" in caller.roles:
        whom = tx.scalars(
            select(Person).where(people_seen(caller), _begins(text, Person.name, Person.email)).limit(MOST)
        )
        hits += [Hit("person", item.id, item.name or item.email or item.id, item.email) for item in whom]
        grouped = tx.scalars(select(Team).where(teams_seen(caller), _begins(text, Team.name)).limit(MOST))
        hits += [Hit("team", item.id, item.name) for item in grouped]
    return hits


def _begins(text: str, *columns: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    return or_(*(func.lower(column).startswith(text, autoescape=True) for column in columns))


def _by_id(tx: Transaction, caller: Caller, id_: str) -> list[Hit]:
    """What the id names, if the caller may see it: what they may not see reads like nothing."""
    try:
        return [_named(tx, caller, id_)]
    except (NotFound, Forbidden):
        return []


def _named(tx: Transaction, caller: Caller, id_: str) -> Hit:
    prefix = id_.partition("_")[0] if "_" in id_ else "lease"
    if prefix == "lease":
        return Hit("lease", holdings.lease(tx, caller, id_).id, id_)
    if prefix == "gr":
        return Hit("grant", holdings.grant(tx, caller, id_).id, id_)
    if prefix == "rq":
        return Hit("request", requests.request(tx, caller, id_).id, id_)
    if prefix == "ev":
        return Hit("event", one_event(tx, caller, id_).id, id_)
    if prefix == "pe":
        whom = people.person(tx, caller, id_)
        return Hit("person", whom.id, whom.name or whom.email or whom.id, whom.email)
    if prefix == "te":
        return Hit("team", id_, teams.team(tx, caller, id_).name)
    if prefix == "ds":
        of = datasets.dataset(tx, caller, id_)
        return Hit("dataset", of.slug, of.title, of.slug)
    require_admin(caller)
    return Hit("vendor", id_, vendors.vendor(tx, caller, id_).name)
