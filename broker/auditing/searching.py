"""Finding something the caller may see: by its id, the beginning of its name, or a lease's name at its backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_

from broker.auditing.reading_events import one_event
from broker.base.database import Transaction
from broker.base.errors import Forbidden, NotFound
from broker.base.ids import is_id
from broker.identity.caller import Caller
from broker.identity.nouns import Noun, declared, noun_of
from broker.kinds.names import lease_of
from broker.registry.naming import bare

MOST = 20
LONGEST = 100


@dataclass(frozen=True, slots=True)
class Hit:
    """Something found: what it is, in which of the portal's places, its id there, its name, and what tells it apart."""

    what: str
    place: str
    id: str
    name: str
    beside: str = ""


def search(tx: Transaction, caller: Caller, text: str) -> list[Hit]:
    """At most `MOST` of each sort: by exact id, or by the beginning of a name, in any case."""
    text = " ".join(text.split())[:LONGEST]
    if not text:
        return []
    id_ = lease_of(bare(text.lower()))
    return _by_id(tx, caller, id_) if is_id(id_) else _by_name(tx, caller, text.lower())


def _by_name(tx: Transaction, caller: Caller, text: str) -> list[Hit]:
    hits = []
    for noun in sorted(declared(), key=lambda noun: noun.plural):
        if noun.search and noun.search.begins and noun.search.by_name(caller):
            begin = (func.lower(column).startswith(text, autoescape=True) for column in noun.search.begins)
            hits += [_hit(noun, found) for found in tx.scalars(noun.query(tx, caller).where(or_(*begin)).limit(MOST))]
    return hits


def _by_id(tx: Transaction, caller: Caller, id_: str) -> list[Hit]:
    """What the id names, if the caller may see it: what they may not see reads like nothing."""
    try:
        if id_.startswith("ev_"):
            return [Hit("event", "events", one_event(tx, caller, id_).id, id_)]
        noun = noun_of(id_)
        if noun is None or noun.search is None or not noun.search.by_id(caller):
            return []
        return [_hit(noun, noun.one(tx, caller, id_))]
    except (NotFound, Forbidden):
        return []


def _hit(noun: Noun[Any], found: Any) -> Hit:
    assert noun.search is not None  # only such nouns are searched
    return Hit(noun.name, noun.plural, *noun.search.hit(found))
