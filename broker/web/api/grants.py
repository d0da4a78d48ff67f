"""`/grants`: approved roles, from-until."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from broker.base import bulk_lines, csv_lines
from broker.base.database import Transaction, clock
from broker.leases import holdings
from broker.leases.holdings import GRANTS
from broker.models import Grant
from broker.registry.naming import names_of
from broker.requests import bulk_grants
from broker.web.api.common import At, Ended, FreshCaller, Id, PartsNow, Prose, ReasonBody, Shown, Strict, verb
from broker.web.api.reading import (
    After,
    BulkReportShown,
    CsvBody,
    DryRun,
    File,
    KeepGoing,
    add_list,
    add_show,
    content_of,
    report_shown,
)


class GrantShown(Shown):
    """A grant: a right, not a secret. `holder` is prefixed; `max_lifetime` is in seconds."""

    id: str
    state: Literal["coming", "current", "ended", "revoked"]
    dataset: str
    role: str
    slice: Annotated[str | None, Field(validation_alias="slice_name")]
    holder: str
    holder_name: str
    purpose: str
    starts_at: datetime
    ends_at: datetime
    max_lifetime: int | None
    revoked_at: datetime | None
    revoke_reason: str
    request: Annotated[str | None, Field(validation_alias="request_id")]


def grants_shown(tx: Transaction, items: Sequence[Grant]) -> list[GrantShown]:
    """Grants, with the names they refer to."""
    now = clock(tx)
    names = names_of(tx, [id_ for item in items for id_ in (item.dataset_id, item.holder_id)])
    return [
        GrantShown.of(
            item,
            state=_grant_state(item, now),
            dataset=names[item.dataset_id],
            holder_name=names.get(item.holder_id, ""),
        )
        for item in items
    ]


def _grant_state(item: Grant, now: datetime) -> Literal["coming", "current", "ended", "revoked"]:
    if item.revoked_at is not None:
        return "revoked"
    if item.starts_at > now:
        return "coming"
    return "current" if item.ends_at > now else "ended"


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
    body: CsvBody,
    caller: FreshCaller,
    parts: PartsNow,
    dry_run: DryRun = False,
    keep_going: KeepGoing = False,
    after: After = 0,
) -> BulkReportShown:
    """Give grants by the lines of a file: `dataset,role,purpose,until` and `person` or `team`, perhaps `slice`.

    For who decides about the dataset: each line goes through what an approval goes through. A vendor's lead asks by the
    same file: each line is a request. At most 500 lines at once, each a transaction of its own; without `keep_going`,
    one refused line stops them all. Sent again, it gives and asks nothing twice.
    """
    rows = csv_lines.read(content_of(body), bulk_grants.COLUMNS, after=after)
    report = bulk_lines.run(
        parts.database, rows, bulk_grants.task(parts, caller), dry_run=dry_run, keep_going=keep_going
    )
    return report_shown(report)


add_show(router, GRANTS, GrantShown, "One grant.", render=lambda at, grant: grants_shown(at.tx, [grant])[0])


@verb(router, "POST", "/{grant_id}/revoke", Ended, status=202)
def revoke_grant(at: At, grant_id: str, body: ReasonBody) -> Ended:
    """End a grant and every lease it carries."""
    leases = holdings.revoke_grant(at.tx, at.caller, grant_id, body.reason, at.now)
    return Ended(id=grant_id, status="revoked", leases=leases)
