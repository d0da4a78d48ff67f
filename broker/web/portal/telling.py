"""How pages tell an event: its sentence with names instead of ids, and its details as text, times and links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.access.naming import names_of, names_seen
from broker.access.reading_events import EventRead
from broker.caller import Caller
from broker.database import Transaction
from broker.models import is_id
from broker.web.portal.pages import bare
from broker.web.portal.sentences import sentence

_NO_PERSONS = {"system": "Guestkey", "operator": "The operator"}


@dataclass(frozen=True, slots=True)
class Part:
    """One value: a text, perhaps with a page behind it, or a time."""

    text: str
    href: str = ""
    at: datetime | None = None


def names_in(tx: Transaction, caller: Caller, events: Iterable[EventRead]) -> dict[str, str]:
    """What these events name is called, by id: who did it to whom, and of their details what the reader sees."""
    events = list(events)
    named = {bare(text) for event in events for text in (event.actor, event.subject)}
    beside = {bare(text) for event in events for text in _texts(event.details)}
    return names_of(tx, named) | names_seen(tx, caller, beside)


def said(event: EventRead, names: Mapping[str, str]) -> str:
    """What happened, in a sentence."""
    who = _NO_PERSONS.get(event.actor) or _called(event.actor, names)
    details = {
        name: _called(value, names) if is_id(bare(value)) else value.replace("_", " ")
        for name, value in event.details.items()
        if isinstance(value, str)
    }
    return sentence(event.kind, who, _called(event.subject, names), details)


def told(tx: Transaction, caller: Caller, events: Sequence[EventRead]) -> list[tuple[EventRead, str]]:
    """Events, each with its sentence."""
    names = names_in(tx, caller, events)
    return [(event, said(event, names)) for event in events]


def details_of(details: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, list[Part]]]:
    """Details by name, those that say nothing left out."""
    return [
        (name.replace("_", " ").capitalize(), [part(text, names) for text in _texts(value)])
        for name, value in details.items()
        if value not in (None, "", [], {})
    ]


def part(value: str, names: Mapping[str, str]) -> Part:
    """One value, as a page shows it."""
    id_ = bare(value)
    if is_id(id_):
        return Part(names.get(id_, value), f"/events/{id_}" if id_.startswith("ev_") else f"/events?about={id_}")
    try:
        at = datetime.fromisoformat(value) if "T" in value else None
    except ValueError:
        at = None
    return Part(value, at=at if at and at.tzinfo else None)


def _called(named: str, names: Mapping[str, str]) -> str:
    """A name, or the id's end: nobody reads all of it."""
    id_ = bare(named)
    return names.get(id_, f"…{id_[-6:]}" if is_id(id_) else named)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from (text if is_id(bare(text)) else f"{name} {text}" for text in _texts(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)
