"""The one way to write a slice's row filters as text: `age>=18`, `site in "Ulm, Nord",Bonn`, `left_at is null`.

The command line, the portal's form and the commands that the portal prints all use it, so it imports nothing of the
server. A value stays text: what it means is decided by the type of its column (`broker.kinds.tables.filter_values`).

A value stands bare, or in quotation marks with the escapes of JSON (RFC 8259, section 7). It needs them if it is empty,
begins with a quotation mark or a comparison, begins or ends with a space, or, in a list, holds a comma.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

_CONDITION = re.compile(
    r"\s*([a-z_][a-z0-9_]*)\s*(<=|>=|<>|=|<|>|\bin\b|\bis\s+not\s+null\b|\bis\s+null\b)\s*(.*?)\s*", re.DOTALL
)
_BARE = re.compile(r"[^\W_](?:[\w .:+@/-]*[\w.:+@/-])?")
_NUMBER = re.compile(r"-[0-9][0-9.]*")
_QUOTE = '"'
# Control characters may stand in a quoted text as they are: a shell passes on a line break just as well.
_JSON = json.JSONDecoder(strict=False)


class FilterSyntaxError(ValueError):
    """A text that is no filter; its message is one sentence for whoever wrote it."""


def read_condition(text: str) -> list[Any]:
    """One filter as a binding has it: `[column, operator]`, `[column, operator, value]` or `[column, "in", [values]]`.

    Raises:
        Unreadable: it is no filter, or could be read in two ways.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise FilterSyntaxError(f"{text!r} is no condition.")
    column, operator, value = found.groups()
    if operator.startswith("is"):
        if value:
            raise FilterSyntaxError(f"Nothing can follow “{operator}”.")
        return [column, "not_null" if "not" in operator else "is_null"]
    if operator == "in":
        return [column, operator, read_values(value)]
    if value[:1] in ("=", "<", ">"):
        raise FilterSyntaxError(f"Put the value in quotation marks, since it begins with {value[0]!r}.")
    return [column, operator, read_value(value)]


def read_value(text: str) -> str:
    """One value, bare or quoted.

    Raises:
        Unreadable: it is empty, or its quotation marks do not pair.
    """
    text = text.strip()
    if not text.startswith(_QUOTE):
        return _bare(text)
    value, end = _quoted(text, 0)
    if end != len(text):
        raise FilterSyntaxError("Something follows the closing quotation mark.")
    return value


def read_values(text: str) -> list[str]:
    """Values separated by commas, each bare or quoted.

    Raises:
        Unreadable: one of them is empty, or quotation marks do not pair.
    """
    values, at = [], 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if text.startswith(_QUOTE, at):
            value, end = _quoted(text, at)
            rest = text[end:].lstrip()
            if rest and not rest.startswith(","):
                raise FilterSyntaxError("Something other than a comma follows a closing quotation mark.")
            comma = text.find(",", end)
        else:
            comma = text.find(",", at)
            value = _bare(text[at:] if comma < 0 else text[at:comma])
        values.append(value)
        if comma < 0:
            return values
        at = comma + 1


def write_condition(row: Sequence[Any]) -> str:
    """A filter of a binding as text that `read_condition` reads as the same filter."""
    column, operator, *value = row
    if operator in ("is_null", "not_null"):
        return f"{column} is {'not ' * (operator == 'not_null')}null"
    return f"{column} in {write_values(value[0])}" if operator == "in" else f"{column}{operator}{write_value(value[0])}"


def write_values(values: Sequence[Any]) -> str:
    """Values as text that `read_values` reads as the same values."""
    return ", ".join(map(write_value, values))


def write_value(value: Any) -> str:
    """A value as text that `read_value` reads as the same value; what cannot be seen is written as an escape."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if (_BARE.fullmatch(text) or _NUMBER.fullmatch(text)) and not any(map(_invisible, text)):
        return text
    written = json.dumps(text, ensure_ascii=False)
    return "".join(json.dumps(mark)[1:-1] if _invisible(mark) else mark for mark in written)


def _invisible(character: str) -> bool:
    return character != " " and unicodedata.category(character).startswith(("C", "Z"))


def _bare(text: str) -> str:
    text = text.strip()
    if not text:
        raise FilterSyntaxError('A value is missing; write "" for the empty text.')
    return text


def _quoted(text: str, at: int) -> tuple[str, int]:
    try:
        value, end = _JSON.raw_decode(text, at)
    except ValueError:
        raise FilterSyntaxError(
            "A quotation mark is not closed, or a backslash in it starts no escape of JSON."
        ) from None
    return str(value), end
