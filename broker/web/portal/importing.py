"""Many at once by a file: choose it, see what would become of each line, do it, and read the report.

Nothing is kept between the steps: the page that shows what would happen carries the lines to the next one, so a file
can wait there over a restart, and sent twice it does nothing twice. What each line does is `broker.base.bulk_lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from broker.base import bulk_lines, csv_lines
from broker.base.bulk_lines import Task
from broker.base.csv_lines import Columns
from broker.base.errors import GuestkeyError
from broker.identity import invitations
from broker.identity.http import check_own_form
from broker.identity.invitations import join_link
from broker.registry import bulk_invitations
from broker.requests import bulk_grants
from broker.web.api.reading import BulkReportShown, LineShown, report_shown
from broker.web.portal.forms import Context, FormFailure, PortalRequest, fresh, page, router, submit, trouble_of
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Viewer, fields_and_file

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
    # How long the form is was bounded before.
    fields, content = await fields_and_file(request, max_files=1, max_fields=_MOST_FIELDS)
    return Sent(fields, content or fields.get("lines", "").encode())


def _own_form(request: Request, sent: Annotated[Sent, Depends(_sent)]) -> Sent:
    check_own_form(request, sent.fields.get("csrf_token", ""))
    return sent


SentFile = Annotated[Sent, Depends(_own_form)]


@page("/people/import", template="bulk/choose.html")
def choose_people(req: PortalRequest) -> Context:
    """The form that takes a file of people."""
    return _chooses(PEOPLE, req.prefilled("source"), invitations.source_choices(req.tx, req.caller))


@router.post("/people/import")
def import_people(viewer: MemberNow, sent: SentFile) -> Response:
    """Show what would become of each line; asked again with `do`, do it and show the report, once."""
    return _import(viewer, PEOPLE, sent)


@page("/grants/import", template="bulk/choose.html")
def choose_grants(req: PortalRequest) -> Context:
    """The form that takes a file of grants: given by who decides, asked for by a vendor's lead."""
    return _chooses(_grants(req.viewer), req.sent, [])


@router.post("/grants/import")
def import_grants(viewer: MemberNow, sent: SentFile) -> Response:
    """The same two steps as with people."""
    return _import(viewer, _grants(viewer), sent)


def _grants(viewer: Viewer) -> Files:
    return GIVEN if bulk_grants.gives(viewer.caller) else ASKED


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
        return _checked(FormFailure(viewer), files, sent)

    def do(viewer: Viewer) -> Response:
        report = _run(viewer, files, sent, dry_run=False)
        done, refused, table = report.counts.get(files.made, 0), _refused(report), _table(report)
        shown: Context = {"kind": files.kind, "report": report, "done": done, "refused": refused, "table": table}
        return render("bulk/report.html", viewer=viewer, **shown)

    return submit(viewer, sent.fields, do, lambda failure: _checked(failure, files, sent), needs=fresh)


def _run(viewer: Viewer, files: Files, sent: Sent, *, dry_run: bool) -> BulkReportShown:
    rows = csv_lines.read(sent.content, files.columns)
    keep_going, task = sent.fields.get("keep_going") == "yes", files.task(viewer, sent)
    report = bulk_lines.run(viewer.parts.database, rows, task, dry_run=dry_run, keep_going=keep_going)
    return report_shown(report, lambda token: join_link(viewer.parts, token))


def _checked(failure: FormFailure, files: Files, sent: Sent) -> Response:
    """What would become of each line now; what the file as a whole lacks is said on the form that took it."""
    viewer = failure.viewer
    try:
        report = _run(viewer, files, sent, dry_run=True)
    except GuestkeyError as error:
        # The one field of that form that can be mended, whatever of the file it is about.
        about_source = files is PEOPLE and error.code != "file_unusable"
        trouble = replace(trouble_of(error), field="source" if about_source else "file")
        chosen = choose_people if files is PEOPLE else choose_grants
        return chosen.answer(viewer, sent.fields, replace(failure, trouble=trouble))
    return render(
        "bulk/check.html",
        viewer=viewer,
        status=failure.status if failure.trouble or failure.panel else 200,
        trouble=failure.trouble,
        panel=failure.panel,
        kind=files.kind,
        report=report,
        refused=_refused(report),
        to_do=report.counts.get(files.made, 0),
        lines=sent.content.decode("utf-8-sig"),
        filled=sent.fields,
    )


def _chooses(files: Files, filled: Mapping[str, str], sources: list[tuple[str, str]]) -> Context:
    heading, most = str(files.columns), csv_lines.MOST_LINES
    return {"kind": files.kind, "filled": filled, "sources": sources, "heading": heading, "most": most}


def _refused(report: BulkReportShown) -> list[LineShown]:
    return [line for line in report.lines if line.outcome == bulk_lines.REFUSED]


def _table(report: BulkReportShown) -> str:
    """The report as a file: with the links, of which there is no other copy."""
    rows = ([getattr(line, name) for name in _REPORT] for line in report.lines)
    return "".join(map(csv_lines.line, [_REPORT, *rows]))
