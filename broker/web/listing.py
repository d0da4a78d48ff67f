"""People, grants and leases written out as they are read: a table that no spreadsheet runs, or a JSON document a line.

An export shows exactly what the list of the same filter shows to the same caller. Memory does not grow with it, and no
transaction is held while the reader takes its time: what changes meanwhile may be in it or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi.responses import StreamingResponse

from broker.base import csv_lines
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.paging import Window
from broker.identity.caller import Caller
from broker.log import audit
from broker.runtime.parts import Parts

Form = Literal["csv", "jsonl"]
MEDIA: Mapping[str, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}
Rows = tuple[Sequence[Mapping[str, Any]], str | None]
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that can be written out: what it is called, its columns, and how one page of it is read.

    `read` returns values as JSON has them, and the cursor of the next page.
    """

    name: str
    columns: tuple[str, ...]
    read: Callable[[Transaction, Window], Rows]


def answer(parts: Parts, caller: Caller, listing: Listing, form: Form) -> StreamingResponse:
    """The whole list as a file, newest first; that it was taken out is recorded before the first line is.

    Raises:
        GuestkeyError: the list is not the caller's to read, or the filter cannot be.
    """
    with parts.database.transaction() as tx:
        # Refused now or never: once the answer has begun, nothing can be said any more.
        listing.read(tx, Window(limit=1))
        audit.record(
            tx,
            "list.exported",
            actor=caller.subject,
            subject=caller.id,
            now=clock(tx),
            details={"list": listing.name, "format": form},
        )
    written = (_table if form == "csv" else _lines)(listing.columns, _rows(parts, listing))
    headers = {"Content-Disposition": f'attachment; filename="guestkey-{listing.name}.{form}"'}
    return StreamingResponse(written, media_type=MEDIA[form], headers=headers)


def _rows(parts: Parts, listing: Listing) -> Iterator[Mapping[str, Any]]:
    cursor: str | None = None
    while True:
        with parts.database.transaction() as tx:
            rows, cursor = listing.read(tx, Window(cursor, _BATCH))
        yield from rows
        if cursor is None:
            return


def _table(columns: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    yield csv_lines.line(columns)
    for row in rows:
        yield csv_lines.line(_cell(row[column]) for column in columns)


def _lines(columns: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps({column: row[column] for column in columns}) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
