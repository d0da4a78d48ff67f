"""Values as people read and type them: durations, moments, and text that came from elsewhere. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime
from typing import Any

from guestkey.cli.faults import Code, Fault

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# Control, format, surrogate, line and paragraph separators.
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DURATION = re.compile(r"(\d{1,9})([smhdw]?)", re.ASCII)


def seconds_of(text: str) -> int:
    """A duration such as `15m`, `12h`, `30d` or plain seconds, in seconds.

    Raises:
        Fault: it is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise Fault(Code.USAGE, f"{text!r} is not a duration.", next_step="Write it as 15m, 12h, 30d, or in seconds.")
    return int(match[1]) * _UNITS[match[2] or "s"]


def maybe_seconds_of(text: str | None) -> int | None:
    """The same, None where nothing was said."""
    return None if text is None else seconds_of(text)


def duration(seconds: int) -> str:
    """Seconds in the largest two units that matter: `14 min`, `1 h 30 min`, `30 d`."""
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def relative(when: datetime, now: datetime) -> str:
    """`in 14 min` or `4 min ago`."""
    seconds = round((when - now).total_seconds())
    return f"in {duration(seconds)}" if seconds >= 0 else f"{duration(-seconds)} ago"


def clock(when: datetime, now: datetime) -> str:
    """Local time with its zone, then relative; the date only if it is another day."""
    local = when.astimezone()
    shape = "%H:%M:%S %Z" if local.date() == now.astimezone().date() else "%Y-%m-%d %H:%M:%S %Z"
    return f"{local.strftime(shape)} ({relative(when, now)})"


def safe(value: Any) -> str:
    """One line of text that cannot steer the terminal: what others wrote may hold escapes or direction marks."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(safe(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{safe(key)}={safe(item)}" for key, item in value.items())
    return "".join(_printable(character) for character in str(value))


def safe_json(text: str) -> str:
    """A JSON document that cannot steer the terminal either; to programs it says the same."""
    return "".join(character if character == "\n" else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    # Outside its strings a document holds nothing of the kind but line breaks.
    if unicodedata.category(character) not in _STEERING:
        return character
    return json.dumps(character)[1:-1]


def _printable(character: str) -> str:
    if character in "\t\n\r":
        return " "
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _STEERING else character
