"""`/grants`: approved roles, from-until."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from broker.access import bulk, csv_lines, granting, holdings
from broker.database import now as clock
from broker.web.api import bulk_shapes
from broker.web.api.common import CallerNow, Ended, FreshCaller, PartsNow, PersonFilter, Reason, WindowNow
from broker.web.api.holding_shapes import Grants, GrantShown, grants_shown

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
    rows = csv_lines.read(bulk_shapes.content_of(body), granting.COLUMNS, after=after)
    report = bulk.run(parts.database, rows, granting.task(parts, caller), dry_run=dry_run, keep_going=keep_going)
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
