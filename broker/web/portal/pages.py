"""Turning templates into answers: one Jinja environment, and how times and durations read. Knows no route."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from broker.base.ids import is_id
from broker.policies import Reason
from broker.registry.naming import bare

_WHO = (("you", "What you can fix"), ("time", "What needs time"), ("someone", "What someone else must fix"))
# The checks of the gate, as `policies.decide` names them.
_CHECKS = {
    "open": "Guestkey is open",
    "caller": "your account is active",
    "vendor": "your vendor is active",
    "dataset": "the dataset is active",
    "grant": "your grant is valid now",
    "rule": "a rule allows your role",
    "conditions": "every condition of the rule is met",
}
# The first that matches: browsers name their ancestors too.
_BROWSERS = (("Firefox/", "Firefox"), ("Edg/", "Edge"), ("OPR/", "Opera"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = {name: name for name in ("Android", "iPhone", "iPad", "Windows")} | {"Mac OS": "macOS", "Linux": "Linux"}
_WEB = Path(__file__).parents[1]


def render(template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page. `viewer` is None in the context where nobody is signed in; every macro is there."""
    context = {"viewer": None, "trouble": None, "panel": None, "sent_to": "", "filled": {}, **context}
    macros = _pages.get_template("macros.html").make_module(context)
    return HTMLResponse(_pages.get_template(template).render({**vars(macros), **context}), status)


def iso(at: datetime) -> str:
    """A time as programs read it, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(at: datetime, now: datetime) -> str:
    """A time as people read it, with its zone; the day only if it is another one."""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    if at.date() == now.date():
        return at.strftime("%H:%M UTC")
    return f"{at.day} {at.strftime('%b %Y, %H:%M UTC')}"


def to_the_second(at: datetime) -> str:
    """A time with its date, seconds and zone: what an auditor reads, or finds on paper."""
    at = at.astimezone(UTC)
    return f"{at.day} {at.strftime('%b %Y, %H:%M:%S UTC')}"


def printed_date(at: datetime, now: datetime) -> str:
    """The date that `clock` leaves out for today, which paper needs; "" where it is shown anyway."""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    return f", {at.day} {at.strftime('%b %Y')}" if at.date() == now.date() else ""


def relative(at: datetime, now: datetime) -> str:
    """How far away a time is."""
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def shell(text: object) -> str:
    """One word of a command, whatever whoever sent the link has written into it."""
    return shlex.quote("".join(character for character in str(text) if character.isprintable()))


def duration(seconds: float) -> str:
    """A length of time in its largest fitting unit, rounded."""
    # The thresholds are those of the countdown in guestkey.js.
    for unit, size, least in (("days", 86400, 129600), ("h", 3600, 3570), ("min", 60, 90)):
        if seconds >= least or seconds == size:
            count = round(seconds / size)
            return "1 day" if (count, unit) == (1, "days") else f"{count} {unit}"
    return f"{max(1, round(seconds))} s"


def by_whom(reasons: Sequence[Reason]) -> list[tuple[str, str, list[Reason]]]:
    """Reasons by who can act: the word, its heading, and the reasons; groups without any are left out."""
    groups = [(who, heading, [reason for reason in reasons if reason.who == who]) for who, heading in _WHO]
    return [group for group in groups if group[2]]


def checks(passed: Sequence[str]) -> str:
    """The checks that passed, in words; "" for none."""
    said = ", ".join(_CHECKS.get(name, name) for name in passed)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def spaced(secret: str) -> str:
    """A key to be typed, in groups of four."""
    return " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))


def names_something(value: str) -> bool:
    """Whether this is the id of something, alone or behind `person:` or `service:`."""
    return is_id(bare(value))


def counted(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def program(user_agent: str) -> str:
    """What a browser calls itself, as its owner would."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), user_agent[:60] or "unknown")
    system = next((name for mark, name in _SYSTEMS.items() if mark in user_agent), "")
    return f"{browser} on {system}" if system else browser


class StaticParts(StaticFiles):
    """Style, script and icons. Browsers keep them but ask each time whether they are still right."""

    def __init__(self) -> None:
        super().__init__(directory=_WEB / "static")

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Serve one file."""
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


_pages = Environment(
    loader=FileSystemLoader(_WEB / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TIMES = (iso, clock, to_the_second, printed_date, relative, duration)
_TEXTS = (by_whom, checks, spaced, counted, program, bare, names_something, shell)
_pages.filters.update({filter_.__name__: filter_ for filter_ in (*_TIMES, *_TEXTS)})
