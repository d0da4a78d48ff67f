"""`/suspensions`: what suspending would end, and what became of each credential it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from broker.revocation.counts import What
from broker.suspensions import reports, suspending
from broker.suspensions.reports import KindOutcome, LeaseOutcome
from broker.suspensions.suspending import DryRun
from broker.web.api.common import Ended, Shown, Strict
from broker.web.api.kinds import EndingShown
from broker.web.api.reading import add_list
from broker.web.api.verbs import At, verb

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


class DryRunShown(Shown):
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


class ReportShown(SuspensionShown):
    """A suspension's report: by kind, outcomes with problems first, and how it differs from the dry run."""

    finished: bool
    total: int
    confirmed: int
    failing: int
    exposed: int
    longest: Annotated[float, AfterValidator(lambda seconds: round(seconds, 3))]
    exposed_until: datetime | None
    offline_until: datetime | None
    by_kind: list[KindOutcome]
    outcomes: list[LeaseOutcome]
    differences: dict[str, tuple[int, int]]
    events: list[str]


add_list(
    router,
    reports.SUSPENSIONS,
    SuspensionShown,
    "Suspensions, newest first: all for admins and auditors, your own otherwise.",
)


@verb(router, "GET", "/preview", DryRunShown)
def preview_suspension(
    at: At,
    what: Annotated[What, Query()],
    target: Annotated[str, Query(max_length=64, description="An id; a dataset's slug; `installation`.")],
) -> DryRunShown:
    """The dry run: what suspending would end, how and how fast, and what it would not. Changes nothing."""
    return dry_run_shown(suspending.dry_run(at.tx, at.caller, what, target))


@verb(router, "GET", "/{suspension_id}", ReportShown)
def show_suspension(
    at: At,
    suspension_id: str,
    only_open: Annotated[
        bool, Query(description="Leave out leases that have ended, and the events: to look again every second.")
    ] = False,
) -> ReportShown:
    """The report of a suspension, growing while credentials end."""
    report = reports.report(at.parts, at.tx, at.caller, suspension_id, at.now, only_open=only_open)
    own = ReportShown.model_fields.keys() - SuspensionShown.model_fields.keys()
    return ReportShown.of(report.suspension, **{name: getattr(report, name) for name in own})


def dry_run_shown(run: DryRun) -> DryRunShown:
    """A dry run, as answered."""
    target = run.target
    return DryRunShown.of(run, what=target.what, id=target.id, name=target.name, status=target.status)
