"""Values of every type of column, how somebody writes them in a filter, and what a filter on them must show."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SAME = ("=", "<>")
LABELS = ("new", "in use", "it's")


@dataclass(frozen=True)
class Column:
    """A column's type in SQL, its values, how one is written, and by what they compare."""

    sql: str
    values: st.SearchStrategy[Any]
    written: Callable[[Any], Any] = str
    key: Callable[[Any], Any] = lambda value: value
    operators: tuple[str, ...] = tuple(COMPARED)


def whole(sql: str, least: int, most: int) -> Column:
    """A column of whole numbers."""
    return Column(sql, st.integers(least, most) | st.sampled_from([least, most, 0]))


def decimals(sql: str) -> Column:
    """A column of decimal numbers with 4 places, of 24 digits."""
    return Column(sql, st.decimals("-1e19", "1e19", places=4) | st.just(Decimal("99999999999999.995")))


def texts(sql: str, *, padded: bool = False, most: int = 8) -> Column:
    """A column of texts, which compare by their characters."""
    letters = st.sampled_from("aAäÄ 'é\\%_😀\"=,\n1")
    values = st.text(letters, max_size=most) | st.sampled_from(["12345", '"Paris"', "= Paris", "acme ", "Acme"])
    return Column(sql, values.filter(lambda text: not text.endswith(" ")) if padded else values)


def enum(sql: str) -> Column:
    """A column of an enumeration."""
    return Column(sql, st.sampled_from(LABELS), operators=SAME)


def days(sql: str, least: datetime) -> Column:
    """A column of days."""
    return Column(sql, st.dates(least.date()))


def moments(sql: str, least: datetime) -> Column:
    """A column of dates and times without a zone."""
    return Column(sql, st.datetimes(least), written=lambda at: at.isoformat())


def zoned(sql: str, most: datetime) -> Column:
    """A column of moments; they are written with one offset and kept with another."""
    there = timezone(timedelta(hours=5, minutes=45))
    at = st.datetimes(datetime(1970, 1, 2), most, timezones=st.just(UTC))  # noqa: DTZ001  strategies want it so
    return Column(sql, at, written=lambda at: at.astimezone(there).isoformat())
