"""`/suspensions`: what suspending would end, and what became of each credential it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from broker.base.database import now as clock
from broker.revocation.counts import What
from broker.suspensions import reports, suspending
from broker.suspensions.reports import Report
from broker.suspensions.suspending import DryRun
from broker.web.api.common import CallerNow, Ended, PartsNow
from broker.web.api.kinds import EndingShown
from broker.web.api.reading import add_list
from broker.web.api.verbs import At
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


def suspend(at: At, what: What, key: str, body: SuspendBody) -> Suspended:
    """Suspend somebody or something."""
    expected = body.expected.model_dump() if body.expected else None
    begun, leases = suspending.suspend(
        at.tx, at.caller, what, key, body.reason, at.now, message=body.message, expected=expected
    )
    return Suspended(id=begun.target_id, status="suspended", leases=leases, suspension=begun.id)


class SuspensionShown(Shown):
    """A suspension."""

    id: str
    what: What
    target: Annotated[str, Field(validation_alias="target_id")]
    name: str
    reason: str
    message: str
    suspended_by: str
    started_at: datetime
    resumed_at: datetime | None
    resumed_by: str | None


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


add_list(
    router,
    reports.SUSPENSIONS,
    SuspensionShown,
    "Suspensions, newest first: all for admins and auditors, your own otherwise.",
)


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


def report_shown(report: Report) -> ReportShown:
    """A report, as answered."""
    return ReportShown.of(report.suspension, **{name: getattr(report, name) for name in _OF_REPORT})


_OF_REPORT = ReportShown.model_fields.keys() - SuspensionShown.model_fields.keys()
