"""Lists written out as they are read: a table that no spreadsheet runs, a JSON document a line, or one for all.

An export shows exactly what the list of the same filter shows to the same caller. Memory does not grow with it, and no
transaction is held while the reader takes its time: what changes meanwhile may be in it or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from fastapi.responses import StreamingResponse

from broker.base import csv_lines
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.paging import Page, Window
from broker.identity.caller import Caller
from broker.log import audit
from broker.runtime.parts import Parts

T = TypeVar("T")
Form = Literal["csv", "jsonl"]
Row = Mapping[str, Any]
_MEDIA = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl; charset=utf-8",
    "json": "application/json",
    "proofs": "application/jsonl; charset=utf-8",
}
_BATCH = 500


def responses(*forms: str) -> dict[int | str, dict[str, Any]]:
    """What the API's description says of a file in one of these forms."""
    return {200: {"content": {_MEDIA[form]: {} for form in forms}}}


def export_list(
    parts: Parts,
    caller: Caller,
    name: str,
    columns: Sequence[str],
    read: Callable[[Transaction, Window], Page[Row]],
    form: Form,
) -> StreamingResponse:
    """A whole list as a file, newest first; that it was taken out is recorded before the first line is.

    Raises:
        GuestkeyError: the list is not the caller's to read, or the filter cannot be.
    """
    with parts.database.transaction() as tx:
        # Refused now or never: once the answer has begun, nothing can be said any more.
        read(tx, Window(limit=1))
        details = {"list": name, "format": form}
        audit.record(tx, "list.exported", actor=caller.subject, subject=caller.id, now=clock(tx), details=details)

    def batch(tx: Transaction, cursor: str | None) -> tuple[Sequence[Row], str | None]:
        page = read(tx, Window(cursor, _BATCH))
        return page.items, page.next_cursor

    return file_of(name, form, written(form, columns, batches(parts, batch)))


def batches(parts: Parts, read: Callable[[Transaction, str | None], tuple[Sequence[T], str | None]]) -> Iterator[T]:
    """Everything that `read` gives, page by page, each in a transaction of its own."""
    cursor: str | None = None
    while True:
        with parts.database.transaction() as tx:
            rows, cursor = read(tx, cursor)
        yield from rows
        if cursor is None:
            return


def written(form: str, columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """The rows in a form, piece by piece."""
    if form == "csv":
        yield csv_lines.line(columns)
        for row in rows:
            yield csv_lines.line(_cell(row[column]) for column in columns)
    elif form == "json":
        yield '{"version":1,"items":['
        for place, row in enumerate(rows):
            yield ("," if place else "") + _json(row, columns)
        yield "]}\n"
    else:
        for row in rows:
            yield _json(row, columns) + "\n"


def file_of(name: str, form: str, pieces: Iterator[str]) -> StreamingResponse:
    """What is written, as a file to be kept."""
    ending = "proofs.jsonl" if form == "proofs" else form
    headers = {"Content-Disposition": f'attachment; filename="guestkey-{name}.{ending}"'}
    return StreamingResponse(pieces, media_type=_MEDIA[form], headers=headers)


def _json(row: Row, columns: Sequence[str]) -> str:
    return json.dumps({column: row[column] for column in columns}, separators=(",", ":"))


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    return " ".join(map(str, value)) if isinstance(value, list) else value
