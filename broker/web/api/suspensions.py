"""`/suspensions`: what suspending would end, and what became of it. `/installation`: closing and opening it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, Field, model_validator

from broker.base.paging import Page
from broker.identity.permissions import require_reader
from broker.revocation import closing
from broker.revocation.closing import InstallationState
from broker.revocation.counts import What
from broker.suspensions import reports, suspending
from broker.suspensions.reports import KindOutcome, LeaseOutcome
from broker.suspensions.suspending import DryRun
from broker.web.api.common import At, Ended, Id, ReasonBody, Shown, Strict, WindowNow, example, verb
from broker.web.api.grants import GrantShown, grants_shown
from broker.web.api.kinds import EndingShown
from broker.web.api.reading import add_list

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


installation = APIRouter(prefix="/installation", tags=["installation"])


class CloseBody(ReasonBody):
    """Why, and the dry run's counts for the report's comparison (`/suspensions/preview?what=installation`)."""

    expected: CountsShown | None = None


class ClosedShown(Shown):
    """How it stands now; `suspension` leads to the report on what became of each credential."""

    closed_at: datetime | None
    why: str
    held_before: datetime | None
    held: int
    live: int
    suspension: str


class ConfirmBody(Strict):
    """Which held grants count again: a vendor's, or those named."""

    vendor: Id | None = None
    grants: Annotated[list[Id], Field(default_factory=list, max_length=500)]

    model_config = example(vendor="vn_01k9zq6c5w3m8v4x7r2t1y0b9d")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.vendor is None) == (not self.grants):
            raise ValueError("name either a vendor or grants")
        return self


class GrantsConfirmed(BaseModel):
    """How many grants this request confirmed, and how many still wait."""

    confirmed: int
    held: int


@verb(installation, "GET", "", InstallationState)
def show_installation(at: At) -> InstallationState:
    """How the installation stands. For admins and auditors."""
    require_reader(at.caller)
    return closing.installation_state(at.tx)


@verb(installation, "POST", "/close", ClosedShown, status=202, fresh=True)
def close_installation(at: At, body: CloseBody) -> ClosedShown:
    """Close everything: nothing is issued any more, everybody is signed out (you too), every lease ends. For admins."""
    expected = body.expected.model_dump() if body.expected is not None else None
    begun = closing.close_manually(at.tx, at.caller, body.reason, at.now, expected=expected)
    return ClosedShown.of(closing.installation_state(at.tx), suspension=begun.id)


@verb(installation, "POST", "/open", InstallationState, fresh=True)
def open_installation(at: At, body: ReasonBody) -> InstallationState:
    """Open again; no session and no lease comes back, held grants stay held. For admins."""
    return closing.reopen(at.tx, at.caller, body.reason, at.now)


@verb(installation, "GET", "/held-grants", Page[GrantShown])
def list_held_grants(at: At, window: WindowNow) -> Page[GrantShown]:
    """Grants that wait to be confirmed after a restore, oldest first. For admins and auditors."""
    held = closing.held_grants(at.tx, at.caller, after=window.cursor or "", limit=window.limit + 1)
    more = held[window.limit - 1].id if len(held) > window.limit else None
    return Page(items=grants_shown(at.tx, held[: window.limit]), next_cursor=more)


@verb(installation, "POST", "/confirm-grants", GrantsConfirmed, fresh=True)
def confirm_grants(at: At, body: ConfirmBody) -> GrantsConfirmed:
    """Let held grants count again, 500 at most in a request; one's own wait for another admin. For admins."""
    done = closing.confirm_grants(at.tx, at.caller, at.now, vendor=body.vendor, grants=body.grants)
    return GrantsConfirmed(confirmed=done, held=closing.installation_state(at.tx).held)
