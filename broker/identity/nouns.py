"""Nouns: what a thing of the product is called, who sees it, and how it is listed, found and told of; said once each.

A noun is declared in its room's file, beside the functions that change it. Naming, lists, search, sentences of events
and the API's pages are made of that. Whatever is special about one stays a function of its room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import SQLCoreOperations

from broker.base.database import Transaction
from broker.base.errors import Conflict
from broker.base.ids import is_id
from broker.base.paging import Page, Window, page
from broker.identity.caller import Caller
from broker.identity.permissions import missing
from broker.log import audit
from broker.models import Base

Record = TypeVar("Record", bound=Base)
Condition = ColumnElement[bool]
Seen = Callable[[Caller], Condition]
_DECLARED: dict[str, Noun[Any]] = {}


@dataclass(frozen=True, slots=True)
class Filter:
    """One way to narrow a list: its name and type, and the column it equals, or what makes a condition of its value."""

    name: str
    type: Any
    where: InstrumentedAttribute[Any] | Callable[[Transaction, Caller, Any], Condition]
    about: str | None = None
    default: Any = None

    def condition(self, tx: Transaction, caller: Caller, value: Any) -> Condition:
        """What a row must meet."""
        return self.where == value if isinstance(self.where, InstrumentedAttribute) else self.where(tx, caller, value)


@dataclass(frozen=True, slots=True)
class Search(Generic[Record]):
    """How search finds a noun: by its id, and those `by_name` also by the beginning of these columns, in any case.

    `hit`: the last part of its address, its name, and what tells it from others.
    """

    begins: tuple[InstrumentedAttribute[str], ...]
    hit: Callable[[Record], tuple[str, str, str]]
    by_name: Callable[[Caller], bool] = lambda _: True
    by_id: Callable[[Caller], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Menu:
    """An entry of the portal's navigation, which leads to the noun's list, and who has use for it."""

    title: str
    for_: Callable[[Caller], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Display:
    """How clients show a noun, such as the command line: given to them in the API's description.

    `columns` of its list, `details` of one: `heading=field` or `field`, separated by `, `, then `!` for what is never
    broken (ids, links), `@` for a time, `#` for seconds. `none`: what an empty list says. `key`: the field that names
    one. `command`: the words that list it, if they are not `NAME list`.
    """

    columns: str
    none: str
    details: str = ""
    key: str = "id"
    command: str = ""

    def described(self, name: str) -> dict[str, Any]:
        """What the operation that lists it carries in OpenAPI."""
        return {"x-noun": {"name": name, "command": f"{name} list", **{k: v for k, v in asdict(self).items() if v}}}


@dataclass(frozen=True, slots=True, eq=False)
class Noun(Generic[Record]):
    """A noun. `called`: its name, a column or, for one that is named after others, a query of ids and names.

    `seen`: the condition that a caller sees a row. `named_to`: that they may read its name, if that is another.
    `check` refuses callers who see none at all. `about`: what the API's description says of it.
    `plain`: the verbs of events told as "<who> <verb> the <noun> <whom>.". `events`: sentences of those that are not;
    `{who}` did it, to `{whom}`, other names are the event's details.
    """

    name: str
    plural: str
    prefix: str
    record: type[Record]
    seen: Seen
    called: SQLCoreOperations[str] | Select[str, str] | None = None
    named_to: Seen | None = None
    check: Callable[[Transaction, Caller], None] | None = None
    filters: tuple[Filter, ...] = ()
    search: Search[Record] | None = None
    about: str = ""
    menu: Menu | None = None
    display: Display | None = None
    plain: tuple[str, ...] = ()
    events: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _DECLARED[self.prefix] = self

    @property
    def sentences(self) -> dict[str, str]:
        """How each kind of its events is told."""
        plain = {f"{self.name}.{verb}": f"{{who}} {verb} the {self.name} {{whom}}." for verb in self.plain}
        return {**plain, **self.events}

    @property
    def key(self) -> Any:
        """The column of its ids."""
        return cast(Any, self.record).id

    @property
    def names(self) -> Select[str, str] | None:
        """The query of ids and names."""
        if self.called is None or isinstance(self.called, Select):
            return self.called
        return select(self.key, self.called)

    def query(self, tx: Transaction, caller: Caller) -> Select[Record]:
        """The query of those the caller sees.

        Raises:
            Forbidden: they are not for this caller at all.
        """
        if self.check is not None:
            self.check(tx, caller)
        return select(self.record).where(self.seen(caller))

    def one(self, tx: Transaction, caller: Caller, id_: str, *, lock: bool = False) -> Record:
        """One of them; with `lock`, nobody else changes it until the transaction ends.

        Raises:
            NotFound: there is none of that id that the caller may see.
            Forbidden: they are not for this caller at all.
        """
        query = self.query(tx, caller).where(self.key == id_)
        found = tx.scalars(query.with_for_update() if lock else query).one_or_none() if is_id(id_) else None
        if found is None:
            raise missing(self.name)
        return found

    def reopen(
        self,
        tx: Transaction,
        caller: Caller,
        found: Record,
        event: str,
        reason: str,
        now: datetime,
        *,
        before: str = "suspended",
        status: str = "active",
    ) -> Record:
        """Let one in again that was shut out, or for the first time; who may is decided by the caller of this.

        Raises:
            Conflict: its status is not the one `before`.
        """
        record, held = cast(Any, self.record), cast(Any, found)
        change = update(record).where(self.key == held.id, record.status == before).values(status=status)
        changed: Record | None = tx.scalars(change.returning(record)).one_or_none()
        if changed is None:
            raise Conflict(f"This {self.name} is {held.status}, not {before}.")
        audit.record(tx, event, actor=caller.subject, subject=held.id, now=now, personal={"reason": reason})
        return changed

    def page(self, tx: Transaction, caller: Caller, window: Window, **narrowed: Any) -> Page[Record]:
        """Those the caller sees, narrowed by its filters; None leaves one out.

        Raises:
            Invalid: the cursor is none of ours, or a filter names nothing.
        """
        query = self.query(tx, caller)
        for filter_ in self.filters:
            value = narrowed.pop(filter_.name, None)
            if value is not None:
                query = query.where(filter_.condition(tx, caller, value))
        assert not narrowed, f"{self.plural} have no filter {', '.join(narrowed)}"  # a list must not widen silently
        return page(tx, query, self.key, window)


def declared() -> Iterable[Noun[Any]]:
    """Every noun of the rooms that this process works with."""
    return _DECLARED.values()


def noun_of(id_: str) -> Noun[Any] | None:
    """The noun that an id names one of; a lease's has no underscore, because backends fold punctuation."""
    return _DECLARED.get(id_.partition("_")[0] if "_" in id_ else "lease") if is_id(id_) else None
