"""How the report on a file looks in responses, and what every endpoint that takes a file shares. No decisions here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import Body, Query
from pydantic import BaseModel, Field

from broker.base.bulk_lines import BulkReport, Line
from broker.base.errors import Invalid
from broker.web.api.common import Shown
from broker.web.catalogue import CATALOGUE

File = Annotated[bytes, Body(media_type="text/csv", description="A file in UTF-8, with a heading.")]
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
