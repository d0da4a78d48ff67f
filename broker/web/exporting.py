"""Events written out as they are read: JSON lines, one JSON document, CSV that no spreadsheet runs, or with proofs.

Memory does not grow with the export, and no transaction is held while the reader takes its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

from broker.auditing import bundles, proofs, reading_events
from broker.auditing.reading_events import EventFilters, EventRead
from broker.base import csv_lines
from broker.base.database import now as clock
from broker.identity.caller import Caller
from broker.log import audit
from broker.runtime.parts import Parts

Form = Literal["jsonl", "json", "csv", "proofs"]
MEDIA: Mapping[Form, str] = {
    "jsonl": "application/jsonl; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "proofs": "application/jsonl; charset=utf-8",
}
COLUMNS = ("number", "id", "at", "kind", "actor", "subject", "details", "personal", "leaf")
_BATCH = 1000


def begin(parts: Parts, caller: Caller, filters: EventFilters, form: Form) -> EventFilters:
    """Record that somebody takes events out, and return the filters with ids for names; an export cannot be refused
    half-way.

    Raises:
        Invalid: a filter names nobody, or more than one.
        Forbidden: the caller may not export.
        NotFound: proofs are asked for, and no checkpoint was signed yet.
    """
    with parts.database.transaction() as tx:
        filters = reading_events.with_ids(tx, caller, filters)
        reading_events.in_order(tx, caller, filters, 0, 1)
        if form == "proofs":
            proofs.checkpoint(tx, caller)
        narrowed = {name: str(value) for name, value in asdict(filters).items() if value is not None}
        audit.record(
            tx,
            "audit.exported",
            actor=caller.subject,
            subject=caller.id,
            now=clock(tx),
            details={"format": form},
            personal={"filter": json.dumps(narrowed, sort_keys=True)},
        )
    return filters


def written(parts: Parts, caller: Caller, filters: EventFilters, form: Form) -> Iterator[str]:
    """The export, piece by piece."""
    if form == "proofs":
        return bundles.lines(parts, caller, _events(parts, caller, filters))
    return _FORMS[form](_events(parts, caller, filters))


def _events(parts: Parts, caller: Caller, filters: EventFilters) -> Iterator[EventRead]:
    after = 0
    while True:
        with parts.database.transaction() as tx:
            events = reading_events.in_order(tx, caller, filters, after, _BATCH)
        yield from events
        if len(events) < _BATCH:
            return
        after = events[-1].number


def _lines(events: Iterator[EventRead]) -> Iterator[str]:
    for event in events:
        yield _json(event) + "\n"


def _document(events: Iterator[EventRead]) -> Iterator[str]:
    yield '{"version":1,"items":['
    for place, event in enumerate(events):
        yield ("," if place else "") + _json(event)
    yield "]}\n"


def _table(events: Iterator[EventRead]) -> Iterator[str]:
    yield csv_lines.line(COLUMNS)
    for event in events:
        said = _plain(event)
        values = map(said.get, COLUMNS)
        yield csv_lines.line(json.dumps(value) if isinstance(value, dict) else value for value in values)


def _json(event: EventRead) -> str:
    return json.dumps(_plain(event), separators=(",", ":"))


def _plain(event: EventRead) -> dict[str, Any]:
    return {**asdict(event), "at": event.at.isoformat()}


_FORMS: Mapping[str, Callable[[Iterator[EventRead]], Iterator[str]]] = {
    "jsonl": _lines,
    "json": _document,
    "csv": _table,
}
