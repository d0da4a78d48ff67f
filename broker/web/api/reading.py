"""Routes that show a noun, made of its declaration: its list, one of them, and the list written out as it is read.

A file shows exactly what the list of the same filter shows to the same caller. Memory does not grow with it, and no
transaction is held while the reader takes its time: what changes meanwhile may be in it or not.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from inspect import Parameter
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Body, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from broker.base import csv_lines
from broker.base.bulk_lines import BulkReport, Line
from broker.base.database import Transaction, clock
from broker.base.errors import Invalid
from broker.base.paging import Page, Window
from broker.identity.caller import Caller
from broker.identity.nouns import Noun
from broker.log import audit
from broker.runtime.parts import Parts
from broker.web.api.common import At, CallerNow, PartsNow, Shown, WindowNow, verb
from broker.web.problems import CATALOGUE

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


Rows = Sequence[Any]
_FORM = Annotated[Form, Query(alias="format", description="A table, or one JSON document a line.")]


@dataclass(frozen=True, slots=True)
class File:
    """How a list is written out: what it says, its columns, and their values as JSON has them."""

    about: str
    columns: tuple[str, ...]
    rows: Callable[[At, Rows], Sequence[Mapping[str, Any]]]


def add_list(
    router: APIRouter,
    noun: Noun[Any],
    shown: Any,
    about: str,
    *,
    render: Callable[[At, Rows], Rows] = lambda _, rows: rows,
    file: File | None = None,
) -> None:
    """The list of a noun, with its filters; as a file, too, if one is described. `render` adds what no record holds."""

    def list_(caller: Caller, parts: Parts, window: Window, **narrowed: Any) -> Page[Any]:
        with parts.database.transaction() as tx:
            found = noun.page(tx, caller, window, **narrowed)
            return Page(items=list(render(At(parts, caller, tx), found.items)), next_cursor=found.next_cursor)

    display = noun.display.described(noun.name) if noun.display else None
    described = {"response_model": Page[shown], "openapi_extra": display}
    _add(router, "", f"list_{noun.plural}", about, list_, _parameters(noun, window=WindowNow), **described)
    if file is not None:
        _add_file(router, noun, file)


def _add_file(router: APIRouter, noun: Noun[Any], file: File) -> None:
    def export(caller: Caller, parts: Parts, form: Form, **narrowed: Any) -> StreamingResponse:
        def read(tx: Transaction, window: Window) -> Page[Row]:
            found = noun.page(tx, caller, window, **narrowed)
            return Page(items=list(file.rows(At(parts, caller, tx), found.items)), next_cursor=found.next_cursor)

        return export_list(parts, caller, noun.plural, file.columns, read, form)

    form = Parameter("form", Parameter.KEYWORD_ONLY, default="csv", annotation=_FORM)
    _add(
        router,
        "/export",
        f"export_{noun.plural}",
        file.about,
        export,
        [*_parameters(noun), form],
        response_class=StreamingResponse,
        responses=responses("csv", "jsonl"),
    )


def add_show(
    router: APIRouter, noun: Noun[Any], shown: Any, about: str, *, render: Callable[[At, Any], Any] = lambda _, row: row
) -> None:
    """One of a noun, by its id. `render` adds what no record holds."""

    def show(at: At, **named: str) -> Any:
        return render(at, noun.one(at.tx, at.caller, named[f"{noun.name}_id"]))

    show.__name__, show.__doc__ = f"show_{noun.name}", about
    id_ = Parameter(f"{noun.name}_id", Parameter.KEYWORD_ONLY, annotation=str)
    show.__signature__ = inspect.Signature([Parameter("at", Parameter.POSITIONAL_ONLY), id_])  # type: ignore[attr-defined]
    verb(router, "GET", f"/{{{noun.name}_id}}", shown)(show)


def _parameters(noun: Noun[Any], **more: Any) -> list[Parameter]:
    annotations = {"caller": CallerNow, "parts": PartsNow} | more
    own = [Parameter(name, Parameter.KEYWORD_ONLY, annotation=type_) for name, type_ in annotations.items()]
    return own + [
        Parameter(
            filter_.name,
            Parameter.KEYWORD_ONLY,
            default=filter_.default,
            annotation=Annotated[
                filter_.type if filter_.default else filter_.type | None, Query(description=filter_.about)
            ],
        )
        for filter_ in noun.filters
    ]


def _add(
    router: APIRouter,
    path: str,
    name: str,
    about: str,
    endpoint: Callable[..., Any],
    parameters: list[Parameter],
    **described: Any,
) -> None:
    endpoint.__name__, endpoint.__doc__ = name, about
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    router.add_api_route(path, endpoint, methods=["GET"], operation_id=name, **described)


CsvBody = Annotated[bytes, Body(media_type="text/csv", description="A file in UTF-8, with a heading.")]
DryRun = Annotated[bool, Query(description="Report what would happen to each line, and write nothing.")]
KeepGoing = Annotated[bool, Query(description="Process the valid lines even if other lines are refused.")]
After = Annotated[
    int, Query(ge=0, le=1_000_000, description="Lines of the whole file before this part, for the numbers reported.")
]


class LineShown(Shown):
    """What became of one line. A `link` is shown this once; refused: `code`, `detail`, `advice` and `column` say why.

    `key` is the same for lines that mean the same.
    """

    line: Annotated[int, Field(validation_alias="number")]
    outcome: str
    about: str
    key: str
    id: str
    link: str
    expires_at: datetime | None
    code: str
    column: str
    detail: str
    advice: str


class BulkReportShown(BaseModel):
    """A line for each line; `counts` by outcome. `dry_run`: nothing was written."""

    dry_run: bool
    counts: dict[str, int]
    lines: list[LineShown]


def content_of(body: bytes) -> bytes:
    """The file that came.

    Raises:
        Invalid: there is none.
    """
    if not body:
        raise Invalid("There is no file.", advice="Send it as the body, as text/csv.", code="file_unusable")
    return body


def report_shown(report: BulkReport, link_of: Callable[[str], str] | None = None) -> BulkReportShown:
    """The report, with its links."""
    return BulkReportShown(
        dry_run=report.dry_run, counts=dict(report.counts), lines=[_line(line, link_of) for line in report.lines]
    )


def _line(line: Line, link_of: Callable[[str], str] | None) -> LineShown:
    usual = CATALOGUE[line.code].advice if line.code in CATALOGUE else ""
    return LineShown.of(line, link=link_of(line.token) if line.token and link_of else "", advice=line.advice or usual)
