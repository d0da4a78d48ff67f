"""How pages show an event's details: as text, times and links, with names instead of ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.auditing.event_texts import texts
from broker.base.ids import is_id
from broker.registry.naming import bare


@dataclass(frozen=True, slots=True)
class SentencePart:
    """One value: a text, perhaps with a page behind it, or a time."""

    text: str
    href: str = ""
    at: datetime | None = None


def details_of(details: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, list[SentencePart]]]:
    """Details by name, those that say nothing left out."""
    return [
        (name.replace("_", " ").capitalize(), [part(text, names) for text in texts(value)])
        for name, value in details.items()
        if value not in (None, "", [], {})
    ]


def part(value: str, names: Mapping[str, str]) -> SentencePart:
    """One value, as a page shows it."""
    id_ = bare(value)
    if is_id(id_):
        return SentencePart(
            names.get(id_, value), f"/events/{id_}" if id_.startswith("ev_") else f"/events?about={id_}"
        )
    try:
        at = datetime.fromisoformat(value) if "T" in value else None
    except ValueError:
        at = None
    return SentencePart(value, at=at if at and at.tzinfo else None)
