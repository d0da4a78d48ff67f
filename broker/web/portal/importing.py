"""Many at once by a file: choose it, see what would become of each line, do it, and read the report.

Nothing is kept between the steps: the page that shows what would happen carries the lines to the next one, so a file
can wait there over a restart, and sent twice it does nothing twice. What each line does is `broker.base.bulk_lines`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from broker.base import bulk_lines, csv_lines
from broker.base.bulk_lines import Task
from broker.base.csv_lines import Columns
from broker.base.errors import Forbidden, GuestkeyError, Invalid
from broker.identity.http import check_own_form
from broker.identity.invitations import join_link
from broker.registry import bulk_invitations
from broker.requests import bulk_grants
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


@dataclass(frozen=True, slots=True)
class Files:
    """One kind of file: what its lines hold, the outcome of a line that was done, and what is done with each."""

    kind: str
    columns: Columns
    made: str
    task: Callable[[Viewer, Sent], Task]


async def _sent(request: Request) -> Sent:
    """The form. Asynchronous because a form can be read in no other way here; how long it is was bounded before.

    Raises:
        Invalid: a field comes twice, or the form is no text in UTF-8.
    """
    try:
        async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
            parts = form.multi_items()
            fields = {name: value for name, value in parts if not isinstance(value, UploadFile)}
            files = [value for _, value in parts if isinstance(value, UploadFile)]
            content = (await files[0].read() if files else b"") or fields.get("lines", "").encode()
    except (UnicodeError, LookupError):
        raise Invalid("The form is not valid UTF-8.", advice="Go back, reload the page and send it again.") from None
    if len(fields) + len(files) != len(parts):
        raise Invalid("The form contains a field twice.", advice="Go back, reload the page and send it again.")
    return Sent(fields, content)


def _own_form(request: Request, sent: Annotated[Sent, Depends(_sent)]) -> Sent:
    check_own_form(request, sent.fields.get("csrf_token", ""))
    return sent


SentFile = Annotated[Sent, Depends(_own_form)]


@router.get("/people/import")
def choose_people(viewer: MemberNow, source: str = "") -> HTMLResponse:
    """The form that takes a file of people."""
    return _choose(Setback(viewer), PEOPLE, {"source": source})


@router.post("/people/import")
def import_people(viewer: MemberNow, sent: SentFile) -> Response:
    """Show what would become of each line; asked again with `do`, do it and show the report, once."""
    return _import(viewer, PEOPLE, sent)


@router.get("/grants/import")
def choose_grants(viewer: MemberNow) -> HTMLResponse:
    """The form that takes a file of grants: given by who decides, asked for by a vendor's lead."""
    return _choose(Setback(viewer), _grants(viewer), {})


@router.post("/grants/import")
def import_grants(viewer: MemberNow, sent: SentFile) -> Response:
    """The same two steps as with people."""
    return _import(viewer, _grants(viewer), sent)


def _grants(viewer: Viewer) -> Files:
    if viewer.inside:
        return GIVEN
    if "lead" in viewer.caller.roles:
        return ASKED
    raise Forbidden("Only people who decide about a dataset and a vendor's lead can do this.", advice="Ask your lead.")


def _inviting(viewer: Viewer, sent: Sent) -> Task:
    with viewer.parts.database.transaction() as tx:
        source = bulk_invitations.source_for(tx, viewer.caller, sent.fields.get("source") or None, None)
    again, lifetime = sent.fields.get("again") == "yes", viewer.parts.settings.invitation_lifetime
    return bulk_invitations.task(viewer.caller, bulk_invitations.Inviting(source, again, lifetime))


def _granting(viewer: Viewer, _: Sent) -> Task:
    return bulk_grants.task(viewer.parts, viewer.caller)


PEOPLE = Files("people", bulk_invitations.COLUMNS, "invited", _inviting)
GIVEN = Files("given", bulk_grants.COLUMNS, "granted", _granting)
ASKED = Files("asked", bulk_grants.COLUMNS, "asked", _granting)


def _import(viewer: Viewer, files: Files, sent: Sent) -> Response:
    if sent.fields.get("do") != "yes":
        return _checked(Setback(viewer), files, sent)

    def do(viewer: Viewer) -> Response:
        report = _run(viewer, files, sent, dry_run=False)
        return render(
            "bulk/report.html",
            viewer=viewer,
            kind=files.kind,
            report=report,
            done=report.counts.get(files.made, 0),
            refused=_refused(report),
            table=_table(report),
        )

    return act(viewer, sent.fields, do, lambda setback: _checked(setback, files, sent), needs=fresh)


def _run(viewer: Viewer, files: Files, sent: Sent, *, dry_run: bool) -> ReportShown:
    rows = csv_lines.read(sent.content, files.columns)
    report = bulk_lines.run(
        viewer.parts.database,
        rows,
        files.task(viewer, sent),
        dry_run=dry_run,
        keep_going=sent.fields.get("keep_going") == "yes",
    )
    return report_shown(report, lambda token: join_link(viewer.parts, token))


def _checked(setback: Setback, files: Files, sent: Sent) -> HTMLResponse:
    """What would become of each line now; what the file as a whole lacks is said on the form that took it."""
    viewer = setback.viewer
    try:
        report = _run(viewer, files, sent, dry_run=True)
    except GuestkeyError as error:
        # The one field of that form that can be mended, whatever of the file it is about.
        about_source = files is PEOPLE and error.code != "file_unusable"
        trouble = replace(trouble_of(error), field="source" if about_source else "file")
        return _choose(replace(setback, trouble=trouble), files, sent.fields)
    return render(
        "bulk/check.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        kind=files.kind,
        report=report,
        refused=_refused(report),
        to_do=report.counts.get(files.made, 0),
        lines=sent.content.decode("utf-8-sig"),
        filled=sent.fields,
    )


def _choose(setback: Setback, files: Files, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    sources: list[tuple[str, str]] = []
    if files is PEOPLE:
        with viewer.parts.database.transaction() as tx:
            sources = sources_of(tx, viewer)
    return render(
        "bulk/choose.html",
        viewer=viewer,
        status=setback.status if setback.trouble else 200,
        trouble=setback.trouble,
        kind=files.kind,
        filled=filled,
        sources=sources,
        heading=str(files.columns),
        most=csv_lines.MOST_LINES,
    )


def _refused(report: ReportShown) -> list[LineShown]:
    return [line for line in report.lines if line.outcome == bulk_lines.REFUSED]


def _table(report: ReportShown) -> str:
    """The report as a file: with the links, of which there is no other copy."""
    written = io.StringIO()
    written.write(csv_lines.line(_REPORT))
    for line in report.lines:
        written.write(csv_lines.line(getattr(line, name) for name in _REPORT))
    return written.getvalue()
