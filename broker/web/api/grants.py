"""`/grants`: approved roles, from-until."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from broker.base import bulk_lines, csv_lines
from broker.base.database import now as clock
from broker.base.errors import Forbidden
from broker.leases import holdings
from broker.requests import bulk_grants
from broker.web.api import bulk_shapes
from broker.web.api.common import CallerNow, Ended, FreshCaller, Id, PartsNow, PersonFilter, Prose, Reason, WindowNow
from broker.web.api.holding_shapes import Grants, GrantShown, grants_shown
from broker.web.validation import Strict

router = APIRouter(prefix="/grants", tags=["grants"])


@router.get("", operation_id="list_grants")
def list_grants(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    person: PersonFilter = None,
    dataset: Annotated[str | None, Query(max_length=64)] = None,
    state: Annotated[Literal["current", "ended"] | None, Query()] = None,
) -> Grants:
    """Grants, newest first: yours and, if you look after a dataset or lead a vendor's staff, theirs."""
    filters = holdings.Filters(dataset=dataset, person=person, state=state)
    with parts.database.transaction() as tx:
        filters = holdings.with_ids(tx, caller, filters)
        page = holdings.list_grants(tx, caller, window, filters)
        return Grants(items=grants_shown(tx, page.items), next_cursor=page.next_cursor)


class GrantBody(Strict):
    """A grant to give: to one of a vendor's people, or to a team. `until` is a day (until its end, UTC) or a time."""

    dataset: Annotated[str, Field(min_length=1, max_length=64)]
    role: Annotated[str, Field(min_length=1, max_length=32, examples=["annotator"])]
    purpose: Prose
    until: Annotated[str, Field(min_length=1, max_length=40, examples=["2030-12-31", "2030-12-31T18:00Z"])]
    person: Id | None = None
    team: Annotated[str | None, Field(max_length=120, description="The team's id, or its name.")] = None
    slice: Annotated[str | None, Field(max_length=32)] = None


@router.post("", operation_id="give_grant", status_code=201)
def give_grant(body: GrantBody, caller: FreshCaller, parts: PartsNow) -> GrantShown:
    """Give a grant nobody asked for, through what an approval goes through. For who decides about the dataset."""
    if caller.vendor_id is not None:
        raise Forbidden("A vendor's people ask for grants.", advice="`guestkey request new`")
    fields = {name: value or "" for name, value in body.model_dump().items()}
    with parts.database.transaction() as tx:
        return grants_shown(tx, [bulk_grants.give(parts, tx, caller, fields, clock(tx))])[0]


@router.post("/import", operation_id="import_grants")
def import_grants(
    body: bulk_shapes.File,
    caller: FreshCaller,
    parts: PartsNow,
    dry_run: bulk_shapes.DryRun = False,
    keep_going: bulk_shapes.KeepGoing = False,
    after: bulk_shapes.After = 0,
) -> bulk_shapes.ReportShown:
    """Give grants by the lines of a file: `dataset,role,purpose,until` and `person` or `team`, perhaps `slice`.

    For who decides about the dataset: each line goes through what an approval goes through. A vendor's lead asks by the
    same file: each line is a request. At most 500 lines at once, each a transaction of its own; without `keep_going`,
    one refused line stops them all. Sent again, it gives and asks nothing twice.
    """
    rows = csv_lines.read(bulk_shapes.content_of(body), bulk_grants.COLUMNS, after=after)
    report = bulk_lines.run(
        parts.database, rows, bulk_grants.task(parts, caller), dry_run=dry_run, keep_going=keep_going
    )
    return bulk_shapes.report_shown(report)


@router.get("/{grant_id}", operation_id="show_grant")
def show_grant(grant_id: str, caller: CallerNow, parts: PartsNow) -> GrantShown:
    """One grant."""
    with parts.database.transaction() as tx:
        return grants_shown(tx, [holdings.grant(tx, caller, grant_id)])[0]


@router.post("/{grant_id}/revoke", operation_id="revoke_grant", status_code=202)
def revoke_grant(grant_id: str, body: Reason, caller: CallerNow, parts: PartsNow) -> Ended:
    """End a grant and every lease it carries."""
    with parts.database.transaction() as tx:
        leases = holdings.revoke_grant(tx, caller, grant_id, body.reason, clock(tx))
    return Ended(id=grant_id, status="revoked", leases=leases)
