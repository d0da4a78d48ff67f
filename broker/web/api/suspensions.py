"""`/suspensions`: what suspending would end, and what became of each credential it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from broker.base.database import now as clock
from broker.models import Suspension
from broker.revocation.counts import What
from broker.suspensions import reports, suspending
from broker.suspensions.reports import Report
from broker.suspensions.suspending import DryRun
from broker.web.api.common import CallerNow, Ended, PartsNow, WindowNow
from broker.web.api.kinds import EndingShown
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/suspensions", tags=["suspensions"])
Counted = Annotated[int, Field(ge=0, le=1_000_000_000)]


class CountsShown(Shown):
    """What is ended, or stops from being used; `leases` by kind."""

    people: Counted
    services: Counted
    sessions: Counted
    tokens: Counted
    grants: Counted
    requests: Counted
    leases: Annotated[dict[str, Counted], Field(max_length=40)]


class DryRunShown(BaseModel):
    """What suspending would do now; `worst` in seconds, null where use offline goes on until expiry.

    `latest`: by kind, when its last credential expires by itself.
    """

    what: What
    id: str
    name: str
    status: str
    counts: CountsShown
    endings: dict[str, EndingShown]
    worst: int | None
    remains: list[str]
    latest: dict[str, datetime]


class SuspendBody(Strict):
    """Why, what those shut out are told, and the dry run's counts for the report's comparison."""

    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    message: Annotated[str, Field(max_length=2000)] = ""
    expected: CountsShown | None = None


class Suspended(Ended):
    """What a suspension set in motion; `suspension` leads to its report."""

    suspension: str


class SuspensionShown(Shown):
    """A suspension."""

    id: str
    what: What
    target: str
    name: str
    reason: str
    message: str
    suspended_by: str
    started_at: datetime
    resumed_at: datetime | None
    resumed_by: str | None


class Suspensions(BaseModel):
    """A page of suspensions."""

    items: list[SuspensionShown]
    next_cursor: str | None


class OutcomeShown(Shown):
    """One lease's end: `ended_at`, `confirmed_by`, or `exposed_until`; `seconds` until its backend confirmed it.

    One that ended and is exposed all the same still works for whoever checks it without asking.
    """

    lease: str
    kind: str
    state: str
    seconds: float | None
    ended_at: datetime | None
    confirmed_by: str
    exposed_until: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    error: str
    by_hand: str


class KindOutcomeShown(Shown):
    """What became of one kind's credentials; `exposed`: how many their backend cannot end before `exposed_until`.

    `longest` and the declared `worst_case` are in seconds; until `offline_until` whoever does not ask accepts
    `offline` of them.
    """

    kind: str
    total: int
    confirmed: int
    failing: int
    exposed: int
    longest: float
    exposed_until: datetime | None
    offline: int
    offline_until: datetime | None
    worst_case: int | None


class ReportShown(SuspensionShown):
    """A suspension's report: by kind, outcomes with problems first, and how it differs from the dry run."""

    finished: bool
    total: int
    confirmed: int
    failing: int
    exposed: int
    longest: float
    exposed_until: datetime | None
    offline_until: datetime | None
    by_kind: list[KindOutcomeShown]
    outcomes: list[OutcomeShown]
    differences: dict[str, tuple[int, int]]
    events: list[str]


@router.get("", operation_id="list_suspensions")
def list_suspensions(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    what: Annotated[What | None, Query()] = None,
    state: Annotated[Literal["open", "lifted"] | None, Query()] = None,
) -> Suspensions:
    """Suspensions, newest first: all for admins and auditors, your own otherwise."""
    with parts.database.transaction() as tx:
        page = reports.list_suspensions(tx, caller, window, what=what, state=state)
    return Suspensions(items=[suspension_shown(item) for item in page.items], next_cursor=page.next_cursor)


@router.get("/preview", operation_id="preview_suspension")
def preview_suspension(
    caller: CallerNow,
    parts: PartsNow,
    what: Annotated[What, Query()],
    target: Annotated[str, Query(max_length=64, description="An id; a dataset's slug; `installation`.")],
) -> DryRunShown:
    """The dry run: what suspending would end, how and how fast, and what it would not. Changes nothing."""
    with parts.database.transaction() as tx:
        return dry_run_shown(suspending.dry_run(tx, caller, what, target))


@router.get("/{suspension_id}", operation_id="show_suspension")
def show_suspension(
    suspension_id: str,
    caller: CallerNow,
    parts: PartsNow,
    only_open: Annotated[
        bool, Query(description="Leave out leases that have ended, and the events: to look again every second.")
    ] = False,
) -> ReportShown:
    """The report of a suspension, growing while credentials end."""
    with parts.database.transaction() as tx:
        return report_shown(reports.report(parts, tx, caller, suspension_id, clock(tx), only_open=only_open))


def dry_run_shown(run: DryRun) -> DryRunShown:
    """A dry run, as answered."""
    return DryRunShown(
        what=run.target.what,
        id=run.target.id,
        name=run.target.name,
        status=run.target.status,
        counts=CountsShown.model_validate(run.counts),
        endings={kind: EndingShown.model_validate(ending) for kind, ending in run.endings.items()},
        worst=run.worst,
        remains=list(run.remains),
        latest=dict(run.latest),
    )


def suspension_shown(item: Suspension) -> SuspensionShown:
    """A suspension, as answered."""
    return SuspensionShown(**_fields(item))


def report_shown(report: Report) -> ReportShown:
    """A report, as answered."""
    return ReportShown(
        **_fields(report.suspension),
        finished=report.finished,
        total=report.total,
        confirmed=report.confirmed,
        failing=report.failing,
        exposed=report.exposed,
        longest=round(report.longest, 3),
        exposed_until=report.exposed_until,
        offline_until=report.offline_until,
        by_kind=[KindOutcomeShown.model_validate(one) for one in report.by_kind],
        outcomes=[OutcomeShown.model_validate(outcome) for outcome in report.outcomes],
        differences=dict(report.differences),
        events=list(report.events),
    )


def _fields(item: Suspension) -> dict[str, object]:
    return {
        "id": item.id,
        "what": item.what,
        "target": item.target_id,
        "name": item.name,
        "reason": item.reason,
        "message": item.message,
        "suspended_by": item.suspended_by,
        "started_at": item.started_at,
        "resumed_at": item.resumed_at,
        "resumed_by": item.resumed_by,
    }
