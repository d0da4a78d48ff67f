"""What things are called, by their ids; and the id behind a name that somebody typed into a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import ColumnElement, Select, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from broker.base.database import Transaction
from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.identity.caller import Caller
from broker.identity.nouns import Condition, Filter, Noun, noun_of
from broker.identity.permissions import (
    datasets_seen,
    grants_seen,
    people_seen,
    requests_seen,
    sees_everything,
    teams_seen,
    vendors_seen,
)
from broker.kinds.names import lease_of
from broker.models import Dataset, Grant, Person, Request, Service, Team, Vendor

LONGEST = 200
_Named = Annotated[str, Field(max_length=LONGEST)]


def told_apart(person_id: str, name: str, email: str) -> str:
    """A person in a list to choose from: never empty, and never like somebody else without a name."""
    if name and email:
        return f"{name} ({email})"
    return name or email or f"Person without a name ({person_id})"


def each_told_apart(people: Iterable[Person]) -> dict[str, str]:
    """The same for a whole list, by id: whoever would read like another is told by the id, too."""
    said = {person.id: told_apart(person.id, person.name, person.email) for person in people}
    alike = Counter(said.values())
    return {id_: f"{text} ({id_})" if alike[text] > 1 else text for id_, text in said.items()}


def party(*others: Any) -> ColumnElement[str]:
    """What a person is called who may have no name, or else the first of the others."""
    return func.coalesce(func.nullif(Person.name, ""), func.nullif(Person.email, ""), *others)


def held_by(record: type[Grant] | type[Request], person: ColumnElement[Any]) -> Select[str, str]:
    """The query of ids and names of what was asked for or granted: what, and for whom."""
    return (
        select(record.id, record.role + " on " + Dataset.slug + " for " + party(Team.name, Service.name, "?"))
        .join(Dataset, Dataset.id == record.dataset_id)
        .outerjoin(Person, Person.id == person)
        .outerjoin(Team, Team.id == record.team_id)
        .outerjoin(Service, Service.id == record.service_id)
    )


def names_of(tx: Transaction, ids: Iterable[str]) -> dict[str, str]:
    """What these are called, by id; whatever is no id of ours, or has no name, is left out.

    Nothing is hidden: for what the reader was shown already. Of ids that somebody typed, see `names_seen`.
    """
    return _names(tx, ids, lambda _: true())


def names_seen(tx: Transaction, caller: Caller, ids: Iterable[str]) -> dict[str, str]:
    """The same of what the caller sees: an id tried out reads like one of nothing."""
    if sees_everything(caller):
        return names_of(tx, ids)
    return _names(tx, ids, lambda noun: (noun.named_to or noun.seen)(caller))


def person_meant(tx: Transaction, caller: Caller, text: str, field: str = "person") -> str | None:
    """The id of the one person meant by an id, an e-mail or a whole name; None if nothing was typed.

    Looked among are people the caller sees, and those whose requests and grants it sees.

    Raises:
        Invalid: nobody is called so, or several are.
    """
    text = text.strip()
    if not text or is_id(bare(text)):
        return bare(text) or None
    called = or_(func.lower(Person.name) == text.lower(), func.lower(Person.email) == text.lower())
    query = select(Person.id).where(called, people_met(caller))
    return _one(tx.scalars(query.limit(2)).all(), "Nobody", field)


def vendor_meant(tx: Transaction, caller: Caller, text: str, field: str = "vendor") -> str | None:
    """The id of the one vendor meant by an id or a whole name; None if nothing was typed.

    Raises:
        Invalid: none is called so.
    """
    text = text.strip()
    if not text or is_id(text):
        return text or None
    query = select(Vendor.id).where(func.lower(Vendor.name) == text.lower(), vendors_seen(caller))
    return _one(tx.scalars(query.limit(2)).all(), "No vendor", field)


def anything_meant(tx: Transaction, caller: Caller, text: str, field: str = "about") -> str | None:
    """The id of whatever is meant: any id, a lease's name at its backend (`gk_…`), or a name.

    Names are a dataset's short one, and those of people (or their e-mail), vendors and teams.

    Raises:
        Invalid: nothing is called so, or several things are.
    """
    text = text.strip()
    id_ = lease_of(bare(text))
    if not text or is_id(id_):
        return id_ or None
    low = text.lower()
    called: list[Select[Any]] = [
        select(Dataset.id).where(Dataset.slug == low, datasets_seen(caller)),
        select(Person.id).where(
            or_(func.lower(Person.name) == low, func.lower(Person.email) == low), people_seen(caller)
        ),
        select(Vendor.id).where(func.lower(Vendor.name) == low, vendors_seen(caller)),
        select(Team.id).where(func.lower(Team.name) == low, teams_seen(caller)),
    ]
    found = [id_ for query in called for id_ in tx.scalars(query.limit(2))]
    return _one(found, "Nothing", field)


def people_met(caller: Caller) -> Condition:
    """People the caller sees; the organisation's also those whose requests and grants it sees."""
    if sees_everything(caller) or caller.vendor_id is not None:
        return people_seen(caller)
    held = select(Grant.person_id).where(grants_seen(caller))
    asked = select(Request.person_id).where(requests_seen(caller))
    return or_(people_seen(caller), Person.id.in_(held), Person.id.in_(asked))


def _names(tx: Transaction, ids: Iterable[str], seen: Callable[[Noun[Any]], Condition]) -> dict[str, str]:
    wanted: dict[Noun[Any], set[str]] = {}
    for id_ in ids:
        if (noun := noun_of(id_)) is not None:
            wanted.setdefault(noun, set()).add(id_)
    found: dict[str, str] = {}
    for noun, of in wanted.items():
        if (query := noun.names) is not None:
            found |= {id_: said for id_, said in tx.execute(query.where(noun.key.in_(of), seen(noun))) if said}
    return found


def bare(text: str) -> str:
    """The id behind `person:` or `service:`."""
    return text.rpartition(":")[2]


def _one(found: Sequence[str], nobody: str, field: str) -> str:
    if len(found) == 1:
        return found[0]
    said = "More than one has that name." if found else f"{nobody} that you can see has that name."
    raise Invalid(said, field=f"/{field}", advice="Enter the whole name, or the id; search can find it.")


def vendor_filter(column: InstrumentedAttribute[Any]) -> Filter:
    """The filter of a list by a vendor."""
    return Filter("vendor", _Named, partial(_meant, vendor_meant, column), "A vendor's id or whole name.")


def person_filter(column: InstrumentedAttribute[Any]) -> Filter:
    """The filter of a list by a person."""
    return Filter("person", _Named, partial(_meant, person_meant, column), "A person's id, e-mail or whole name.")


def _meant(
    meant: Callable[[Transaction, Caller, str, str], str | None],
    column: InstrumentedAttribute[Any],
    tx: Transaction,
    caller: Caller,
    text: str,
) -> Condition:
    """The condition that a column names who or what is meant; a blank text narrows nothing."""
    id_ = meant(tx, caller, text, f"query/{meant.__name__.partition('_')[0]}")
    return true() if id_ is None else column == id_
