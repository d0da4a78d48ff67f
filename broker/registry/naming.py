"""What things are called, by their ids; and the id behind a name that somebody typed into a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select, String, case, func, or_, select, type_coerce

from broker.base.database import Transaction
from broker.base.errors import Invalid
from broker.base.ids import is_id
from broker.identity.caller import Caller
from broker.identity.permissions import (
    datasets_seen,
    grants_seen,
    leases_seen,
    people_seen,
    requests_seen,
    sees_everything,
    teams_seen,
    vendors_seen,
)
from broker.kinds.names import lease_of
from broker.models import (
    Dataset,
    Grant,
    Invitation,
    Lease,
    NoticeChannel,
    Person,
    Proposal,
    Request,
    Service,
    SignInSource,
    Slice,
    Suspension,
    Team,
    Vendor,
)

LONGEST = 200


class Named(Protocol):
    """A person's record, or what was read of one."""

    @property
    def id(self) -> str:
        """Of the record."""

    @property
    def name(self) -> str:
        """Empty if no claim had one."""

    @property
    def email(self) -> str:
        """Empty if no claim had one that was verified."""


def told_apart(person_id: str, name: str, email: str) -> str:
    """A person in a list to choose from: never empty, and never like somebody else without a name."""
    if name and email:
        return f"{name} ({email})"
    return name or email or f"Somebody without a name ({person_id})"


def each_told_apart(people: Iterable[Named]) -> dict[str, str]:
    """The same for a whole list, by id: whoever would read like another is told by the id, too."""
    said = {person.id: told_apart(person.id, person.name, person.email) for person in people}
    alike = Counter(said.values())
    return {id_: f"{text} ({id_})" if alike[text] > 1 else text for id_, text in said.items()}


_HELD_BY = func.coalesce(func.nullif(Person.name, ""), func.nullif(Person.email, ""), Team.name, Service.name, "?")


def _held(record: type[Grant] | type[Request], person: ColumnElement[Any]) -> Select[str, str]:
    """What was asked for or granted, and for whom."""
    return (
        select(record.id, record.role + " on " + Dataset.slug + " for " + _HELD_BY)
        .join(Dataset, Dataset.id == record.dataset_id)
        .outerjoin(Person, Person.id == person)
        .outerjoin(Team, Team.id == record.team_id)
        .outerjoin(Service, Service.id == record.service_id)
    )


_ASKS_FOR = case(
    (Request.team_id.is_(None) & Request.service_id.is_(None), func.coalesce(Request.for_person_id, Request.person_id))
)
_SORTS: dict[str, Select[str, str]] = {
    "pe": select(Person.id, func.coalesce(func.nullif(Person.name, ""), func.nullif(Person.email, ""), Person.id)),
    "vn": select(Vendor.id, Vendor.name),
    "te": select(Team.id, Team.name),
    "sv": select(Service.id, Service.name),
    "ds": select(Dataset.id, Dataset.slug),
    "ss": select(SignInSource.id, SignInSource.name),
    "su": select(Suspension.id, Suspension.name),
    "ch": select(NoticeChannel.id, NoticeChannel.name),
    "in": select(Invitation.id, Invitation.label),
    "pr": select(Proposal.id, "“" + func.replace(Proposal.act, "_", " ") + "”"),
    "sl": select(Slice.id, func.split_part(Slice.name, "~", 1) + " of " + Dataset.slug).join(
        Dataset, Dataset.id == Slice.dataset_id
    ),
    "gr": _held(Grant, type_coerce(Grant.person_id, String)),
    "rq": _held(Request, _ASKS_FOR),
    "lease": select(
        Lease.id,
        Dataset.slug
        + ", "
        + Slice.name
        + ", of "
        + func.coalesce(func.nullif(Person.name, ""), func.nullif(Person.email, ""), Service.name, "?"),
    )
    .join(Dataset, Dataset.id == Lease.dataset_id)
    .join(Slice, Slice.id == Lease.slice_id)
    .outerjoin(Person, Person.id == Lease.person_id)
    .outerjoin(Service, Service.id == Lease.service_id),
}


def names_of(tx: Transaction, ids: Iterable[str]) -> dict[str, str]:
    """What these are called, by id; whatever is no id of ours, or has no name, is left out.

    Nothing is hidden: for what the reader was shown already. Of ids that somebody typed, see `names_seen`.
    """
    found: dict[str, str] = {}
    for sort, wanted in _sorted(ids).items():
        query = _SORTS[sort]
        found |= _read(tx, query.where(query.selected_columns[0].in_(wanted)))
    return found


def names_seen(tx: Transaction, caller: Caller, ids: Iterable[str]) -> dict[str, str]:
    """The same of what the caller sees: an id tried out reads like one of nothing."""
    if sees_everything(caller):
        return names_of(tx, ids)
    found: dict[str, str] = {}
    for sort, wanted in _sorted(ids).items():
        if sort in _SEEN:
            query = _SORTS[sort]
            found |= _read(tx, query.where(query.selected_columns[0].in_(wanted), _SEEN[sort](caller)))
    return found


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
    query = select(Person.id).where(called, _people_met(caller))
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


def _people_met(caller: Caller) -> ColumnElement[bool]:
    """People the caller sees; the organisation's also those whose requests and grants it sees."""
    if sees_everything(caller) or caller.vendor_id is not None:
        return people_seen(caller)
    held = select(Grant.person_id).where(grants_seen(caller))
    asked = select(Request.person_id).where(requests_seen(caller))
    return or_(people_seen(caller), Person.id.in_(held), Person.id.in_(asked))


_SEEN: Mapping[str, Callable[[Caller], ColumnElement[bool]]] = {
    "pe": _people_met,
    "vn": vendors_seen,
    "te": teams_seen,
    "ds": datasets_seen,
    "gr": grants_seen,
    "rq": requests_seen,
    "lease": leases_seen,
}


def _sorted(ids: Iterable[str]) -> dict[str, set[str]]:
    sorts: dict[str, set[str]] = {}
    for id_ in filter(is_id, ids):
        sort = id_.partition("_")[0] if "_" in id_ else "lease"
        if sort in _SORTS:
            sorts.setdefault(sort, set()).add(id_)
    return sorts


def _read(tx: Transaction, query: Select[str, str]) -> dict[str, str]:
    return {id_: said for id_, said in tx.execute(query) if said}


def bare(text: str) -> str:
    """The id behind `person:` or `service:`."""
    return text.rpartition(":")[2]


def _one(found: Sequence[str], nobody: str, field: str) -> str:
    if len(found) == 1:
        return found[0]
    said = "More than one is called so." if found else f"{nobody} that you may see is called so."
    raise Invalid(said, field=f"/{field}", advice="Type the whole name, or the id: search finds it.")
