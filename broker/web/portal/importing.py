"""Many at once by a file: choose it, see what would become of each line, do it, and read the report.

Nothing is kept between the steps: the page that shows what would happen carries the lines to the next one, so a file
can wait there over a restart, and sent twice it does nothing twice. What each line does is `broker.access.bulk`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from broker.access import bulk, csv_lines, inviting
from broker.access.bulk import Report
from broker.errors import GuestkeyError, Invalid
from broker.identity.bootstrap import join_link
from broker.identity.http import check_csrf_token, find_caller
from broker.web.api.bulk_shapes import LineShown, ReportShown, report_shown
from broker.web.portal.acting import Setback, act, fresh, trouble_of
from broker.web.portal.inviting import sources_of
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Viewer

router = APIRouter()
_MOST_FIELDS = 12
_REPORT = ("line", "outcome", "about", "link", "column", "detail", "advice")


@dataclass(frozen=True, slots=True)
class Sent:
    """A form that may bring a file. `content` is the file, or the lines that the form carried on."""

    fields: Mapping[str, str]
    content: bytes


async def _sent(request: Request) -> Sent:
    """The form. Asynchronous because a form can be read in no other way here; how long it is was bounded before.

    Raises:
        Invalid: a field comes twice.
    """
    async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
        parts = form.multi_items()
        fields = {name: value for name, value in parts if not isinstance(value, UploadFile)}
        files = [value for _, value in parts if isinstance(value, UploadFile)]
        content = await files[0].read() if files else b""
    if len(fields) + len(files) != len(parts):
        raise Invalid("A field of the form came twice.", advice="Go back, reload the page and send it again.")
    return Sent(fields, content or fields.get("lines", "").encode())


def _own_form(request: Request, sent: Annotated[Sent, Depends(_sent)]) -> Sent:
    check_csrf_token(sent.fields.get("csrf_token", ""), find_caller(request))
    return sent


SentFile = Annotated[Sent, Depends(_own_form)]


@router.get("/people/import")
def choose_people(viewer: MemberNow, source: str = "") -> HTMLResponse:
    """The form that takes a file of people."""
    return _choose(Setback(viewer), {"source": source})


@router.post("/people/import")
def import_people(viewer: MemberNow, sent: SentFile) -> Response:
    """Show what would become of each line; asked again with `do`, do it and show the report, once."""
    if sent.fields.get("do") != "yes":
        return _checked(Setback(viewer), sent)

    def do(viewer: Viewer) -> Response:
        report = _run(viewer, sent, dry_run=False)
        return render(
            "bulk/report.html",
            viewer=viewer,
            report=report,
            refused=_refused(report),
            table=_table(report),
        )

    return act(viewer, sent.fields, do, lambda setback: _checked(setback, sent), needs=fresh)


def _run(viewer: Viewer, sent: Sent, *, dry_run: bool) -> ReportShown:
    rows = csv_lines.read(sent.content, inviting.COLUMNS)
    with viewer.parts.database.transaction() as tx:
        source = inviting.source_for(tx, viewer.caller, sent.fields.get("source") or None, None)
    wanted = inviting.Inviting(source, sent.fields.get("again") == "yes", viewer.parts.settings.invitation_lifetime)
    report: Report = bulk.run(
        viewer.parts.database,
        rows,
        inviting.task(viewer.caller, wanted),
        dry_run=dry_run,
        keep_going=sent.fields.get("keep_going") == "yes",
    )
    return report_shown(report, lambda token: join_link(viewer.parts, token))


def _checked(setback: Setback, sent: Sent) -> HTMLResponse:
    """What would become of each line now; what the file as a whole lacks is said on the form that took it."""
    viewer = setback.viewer
    try:
        report = _run(viewer, sent, dry_run=True)
    except GuestkeyError as error:
        # The one field of that form that can be mended, whatever of the file it is about.
        trouble = replace(trouble_of(error), field="source" if _about_source(error) else "file")
        return _choose(replace(setback, trouble=trouble), sent.fields)
    return render(
        "bulk/check.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        report=report,
        refused=_refused(report),
        to_do=report.counts.get("invited", 0),
        lines=sent.content.decode("utf-8-sig"),
        filled=sent.fields,
    )


def _choose(setback: Setback, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        sources = sources_of(tx, viewer)
    return render(
        "bulk/choose.html",
        viewer=viewer,
        status=setback.status if setback.trouble else 200,
        trouble=setback.trouble,
        filled=filled,
        sources=sources,
        heading=str(inviting.COLUMNS),
        most=csv_lines.MOST_LINES,
    )


def _about_source(error: GuestkeyError) -> bool:
    return error.code != "file_unusable"


def _refused(report: ReportShown) -> list[LineShown]:
    return [line for line in report.lines if line.outcome == bulk.REFUSED]


def _table(report: ReportShown) -> str:
    """The report as a file: with the links, of which there is no other copy."""
    written = io.StringIO()
    written.write(csv_lines.line(_REPORT))
    for line in report.lines:
        written.write(csv_lines.line(getattr(line, name) for name in _REPORT))
    return written.getvalue()
