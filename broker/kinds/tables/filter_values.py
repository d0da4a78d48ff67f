"""What a row filter's value means: read as the type of its column, exactly, or refused. The same for every database.

A value reaches us as text, or as a number or truth of JSON. Databases convert more than is meant: `tomorrow` becomes a
date that is frozen in a view, a decimal number beside a float is rounded, a text beside a number becomes 0. So only
what has one exact meaning passes here, and a database gets it already of its column's type.
"""

from __future__ import annotations

import math
import re
import struct
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Literal

from broker.base.errors import Invalid

FIELD = "/binding/rows"
# JSON's numbers are exact up to here in every reader (RFC 8259, section 6; RFC 8785 knows no others).
SAFE = 2**53 - 1
Stored = str | int | float | bool
Exact = str | int | bool | Decimal | float
Family = Literal[
    "integer", "numeric", "real", "double", "boolean", "text", "padded", "enum", "uuid", "bytes", "date", "moment",
    "zoned", "time", "none",
]  # fmt: skip
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?")
_MOST_DIGITS = 400
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_ZONE = r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
_BYTES = re.compile(r"\\x(?:[0-9a-fA-F]{2})*")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# What has no order that people and all databases agree on is compared for being the same, and no more.
_SAME_ONLY = frozenset({"boolean", "enum", "uuid", "bytes"})
_SAME = frozenset({"=", "<>", "in"})
_TAKES: dict[Family, str] = {
    "integer": "a number",
    "numeric": "a number",
    "real": "a number it can hold exactly, such as 0.5",
    "double": "a number it can hold exactly, such as 0.5",
    "boolean": "true or false",
    "text": "a text",
    "padded": "a text that does not end in a space",
    "enum": "one of its own values",
    "uuid": "a UUID such as 6f9619ff-8b86-d011-b42d-00cf4fc964ff",
    "bytes": "bytes such as \\x00ff",
    "date": "a day such as 2026-01-31",
    "moment": "a date and time without a zone, such as 2026-01-31 12:00:00",
    "zoned": "a date and time with its zone, such as 2026-01-31T12:00:00Z",
    "time": "a time of day such as 12:00:00",
}


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How values of a column are compared. `least` and `most` bound whole numbers; `choices` are an enum's values."""

    name: str
    family: Family
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()


def stored(value: object) -> Stored:
    """A value in the form that is kept: text, a truth, or a number that every reader of JSON takes exactly.

    Any other number is kept as its text.

    Raises:
        Invalid: it is no value at all, or one that no database could compare with.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value if abs(value) <= SAFE else str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= _MOST_DIGITS:
        return _kept(value)
    if isinstance(value, str) and len(value) <= 1000 and is_text(value):
        return value
    raise Invalid(
        "A value is a text of up to 1000 characters, a number, or true or false.",
        field=FIELD,
        advice="Write larger numbers as text, in quotation marks.",
    )


def is_text(value: str) -> bool:
    """Whether databases can hold it: neither zero bytes nor halves of characters."""
    return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def exact(column: str, type_: ColumnType, operator: str, value: Stored) -> Exact:
    """A stored value as what it means beside its column.

    Raises:
        Invalid: the type takes no filter, no such comparison, or no such value.
    """
    if type_.family == "none":
        raise Invalid(
            f"Columns of type {type_.name}, such as {column}, cannot be compared with a value.",
            field=FIELD,
            advice="Use is_null or not_null, or make a view with a column of another type.",
        )
    if type_.family in _SAME_ONLY and operator not in _SAME:
        raise Invalid(
            f"{column} is of type {type_.name}, which can be compared by {', '.join(sorted(_SAME))} only.", field=FIELD
        )
    found = _read(type_, value)
    if found is None:
        choices = f" They are: {', '.join(type_.choices[:20])}." if type_.choices else ""
        raise Invalid(
            f"A row filter compares {column}, which is of type {type_.name}, with a literal of another type.",
            field=FIELD,
            advice=f"It takes {_TAKES[type_.family]}.{choices}",
        )
    return found


def canonical(column: str, type_: ColumnType, operator: str, value: Stored) -> Stored:
    """A value as it is kept once its column's type is known; reading it again gives the same. Raises as `exact`."""
    found = exact(column, type_, operator, value)
    if isinstance(found, float):
        return _kept(Decimal(_shortest(found) if type_.family == "real" else repr(found)))
    return _kept(found) if isinstance(found, Decimal) else stored(found) if isinstance(found, str) else _whole(found)


def plain(number: Decimal) -> str:
    """A number as its digits, without an exponent and without zeros that say nothing."""
    written = format(number, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def _read(type_: ColumnType, value: Stored) -> Exact | None:
    match type_.family:
        case "integer" | "numeric" | "real" | "double":
            return None if isinstance(value, bool) else _number(type_, str(value).strip())
        case "boolean":
            return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value))
    if not isinstance(value, str):
        return None
    match type_.family:
        case "text":
            return value
        case "padded":
            return None if value.endswith(" ") else value
        case "enum":
            return value if value in type_.choices else None
        case "uuid":
            return str(uuid.UUID(value)) if _UUID.fullmatch(value) else None
        case "bytes":
            return value.lower() if _BYTES.fullmatch(value) else None
    return _time(type_.family, value)


def _number(type_: ColumnType, text: str) -> int | Decimal | float | None:
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    if abs(number.adjusted()) > _MOST_DIGITS:
        return None
    if type_.family == "double":
        near = float(text)
        return near if number in (_exactly(near), Decimal(repr(near)), Decimal(f"{near:.17g}")) else None
    if type_.family == "real":
        return _real(text, number)
    whole = number == number.to_integral_value()
    if type_.family == "numeric":
        return int(number) if whole else number
    if not (type_.least or 0) <= number <= (type_.most or 0):
        return None
    return int(number) if whole else number


def _real(text: str, number: Decimal) -> float | None:
    """The number of 32 bits (IEEE 754) that is this one or shown as it; None if there is none."""
    try:
        near = float(struct.unpack("f", struct.pack("f", float(text)))[0])
    except OverflowError:
        return None
    return near if number in (_exactly(near), Decimal(_shortest(near)), Decimal(f"{near:.9g}")) else None


def _exactly(near: float) -> Decimal | None:
    return Decimal(near) if math.isfinite(near) else None


def _shortest(near: float) -> str:
    """The shortest decimal number that stands for this one of 32 bits."""
    written = (f"{near:.{digits}g}" for digits in range(1, 10))
    return next(text for text in written if struct.unpack("f", struct.pack("f", float(text)))[0] == near)


def _time(family: Family, value: str) -> str | None:
    try:
        if family == "date" and re.fullmatch(_DATE, value):
            return date.fromisoformat(value).isoformat()
        if family == "time" and re.fullmatch(_TIME, value):
            return time.fromisoformat(value).isoformat()
        if family == "moment" and re.fullmatch(rf"{_DATE}(?:[T ]{_TIME})?", value):
            return datetime.fromisoformat(value).isoformat(" ")
        if family == "zoned" and re.fullmatch(rf"{_DATE}[T ]{_TIME} ?{_ZONE}", value):
            return datetime.fromisoformat(value.replace(" +", "+")).astimezone(UTC).isoformat(" ")
    except (ValueError, OverflowError):
        return None
    return None


def _kept(number: Decimal) -> Stored:
    if number == number.to_integral_value():
        return _whole(int(number))
    near = float(number)
    return near if math.isfinite(near) and Decimal(repr(near)) == number else plain(number)


def _whole(number: int) -> int | str:
    return number if isinstance(number, bool) or abs(number) <= SAFE else str(number)
