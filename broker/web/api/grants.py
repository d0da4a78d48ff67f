"""`/grants`: approved roles, from-until."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from broker.base import bulk_lines, csv_lines
from broker.leases import holdings
from broker.leases.holdings import GRANTS
from broker.requests import bulk_grants
from broker.web.api import bulk_shapes
from broker.web.api.common import Ended, FreshCaller, Id, PartsNow, Prose, ReasonBody
from broker.web.api.holding_shapes import GrantShown, grants_shown
from broker.web.api.reading import File, add_list, add_show
from broker.web.api.verbs import At, verb
from broker.web.validation import Strict

router = APIRouter(prefix="/grants", tags=["grants"])


class GrantBody(Strict):
    """A grant to give: to one of a vendor's people, or to a team. `until` is a day (until its end, UTC) or a time."""

    dataset: Annotated[str, Field(min_length=1, max_length=64)]
    role: Annotated[str, Field(min_length=1, max_length=32, examples=["annotator"])]
    purpose: Prose
    until: Annotated[str, Field(min_length=1, max_length=40, examples=["2030-12-31", "2030-12-31T18:00Z"])]
    person: Id | None = None
    team: Annotated[str | None, Field(max_length=120, description="The team's id, or its name.")] = None
    slice: Annotated[str | None, Field(max_length=32)] = None


add_list(
    router,
    GRANTS,
    GrantShown,
    "Grants, newest first: yours and, if you look after a dataset or lead a vendor's staff, theirs.",
    render=lambda at, rows: grants_shown(at.tx, rows),
    file=File(
        "Every grant of exactly this filter that you may see; recorded as an event.",
        tuple(GrantShown.model_fields),
        lambda at, rows: [shown.model_dump(mode="json") for shown in grants_shown(at.tx, rows)],
    ),
)


@verb(router, "POST", "", GrantShown, status=201, fresh=True)
def give_grant(at: At, body: GrantBody) -> GrantShown:
    """Give a grant nobody asked for, through what an approval goes through. For who decides about the dataset."""
    fields = {name: value or "" for name, value in body.model_dump().items()}
    return grants_shown(at.tx, [bulk_grants.give(at.parts, at.tx, at.caller, fields, at.now)])[0]


@router.post("/import", operation_id="import_grants")
def import_grants(
    body: bulk_shapes.File,
    caller: FreshCaller,
    parts: PartsNow,
    dry_run: bulk_shapes.DryRun = False,
    keep_going: bulk_shapes.KeepGoing = False,
    after: bulk_shapes.After = 0,
) -> bulk_shapes.BulkReportShown:
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


add_show(router, GRANTS, GrantShown, "One grant.", render=lambda at, grant: grants_shown(at.tx, [grant])[0])


@verb(router, "POST", "/{grant_id}/revoke", Ended, status=202)
def revoke_grant(at: At, grant_id: str, body: ReasonBody) -> Ended:
    """End a grant and every lease it carries."""
    leases = holdings.revoke_grant(at.tx, at.caller, grant_id, body.reason, at.now)
    return Ended(id=grant_id, status="revoked", leases=leases)
