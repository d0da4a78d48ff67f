"""Lists in pages, newest first unless said: the cursor is the last id seen, because ids sort by their making."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import InstrumentedAttribute

from broker.base.database import Transaction
from broker.base.errors import Invalid
from broker.base.ids import is_id

T = TypeVar("T")
DEFAULT_LIMIT = 50
MOST = 200


class Page(BaseModel, Generic[T]):
    """Some of a list, and the cursor of the next page (null: there is none)."""

    model_config = ConfigDict(from_attributes=True, frozen=True, arbitrary_types_allowed=True)

    items: list[T]
    next_cursor: str | None


class Whole(BaseModel, Generic[T]):
    """A list that is short: there is no second page."""

    model_config = ConfigDict(from_attributes=True, frozen=True, arbitrary_types_allowed=True)

    items: list[T]
    next_cursor: None = None


@dataclass(frozen=True, slots=True)
class Window:
    """What page is asked for: at most `limit` rows, made before (oldest first: after) the one the cursor names."""

    cursor: str | None = None
    limit: int = DEFAULT_LIMIT
    oldest_first: bool = False


def page(tx: Transaction, query: Select[T], key: InstrumentedAttribute[str], window: Window) -> Page[T]:
    """Run a query over one record and cut it to the window.

    Raises:
        Invalid: the cursor is none of ours.
    """
    if window.cursor is not None:
        if not is_id(window.cursor):
            raise bad_cursor()
        query = query.where(key > window.cursor if window.oldest_first else key < window.cursor)
    in_order = query.order_by(key if window.oldest_first else key.desc())
    rows = list(tx.scalars(in_order.limit(window.limit + 1)))
    more = len(rows) > window.limit
    rows = rows[: window.limit]
    return Page(items=rows, next_cursor=str(getattr(rows[-1], key.key)) if more else None)


def bad_cursor() -> Invalid:
    """A cursor that no list of ours gave out."""
    return Invalid("This cursor is not valid.", field="/query/cursor", advice="Start without one.")


def matching(*filters: tuple[InstrumentedAttribute[Any], Any]) -> list[ColumnElement[bool]]:
    """The equality conditions of those filters that were given a value."""
    return [column == value for column, value in filters if value is not None]
