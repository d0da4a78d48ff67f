"""How an event is told: in a sentence that names who did it and to what, with names instead of ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from broker.auditing.reading_events import EventRead
from broker.auditing.sentences import sentence
from broker.base.database import Transaction
from broker.base.ids import is_id
from broker.identity.caller import Caller
from broker.registry.naming import bare, names_of, names_seen

_NO_PERSONS = {"system": "Guestkey", "operator": "The operator"}


def names_in(tx: Transaction, caller: Caller, events: Iterable[EventRead]) -> dict[str, str]:
    """What these events name is called, by id: who did it to whom, and of their details what the reader sees."""
    events = list(events)
    named = {bare(text) for event in events for text in (event.actor, event.subject)}
    beside = {bare(text) for event in events for text in texts(event.details)}
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


def _called(named: str, names: Mapping[str, str]) -> str:
    """A name, or the id's end: nobody reads all of it."""
    id_ = bare(named)
    return names.get(id_, f"…{id_[-6:]}" if is_id(id_) else named)


def texts(value: Any) -> Iterator[str]:
    """What a detail holds, text by text."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from (text if is_id(bare(text)) else f"{name} {text}" for text in texts(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)
    elif value is not None:
        yield str(value)
