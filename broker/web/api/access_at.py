"""`/access-at`: who could reach what at a moment in the past, who did, and under which rules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from broker.auditing.access_at import About, access_at
from broker.registry.naming import person_meant, vendor_meant
from broker.web.api.common import CallerNow, PartsNow, PersonFilter, VendorFilter
from broker.web.validation import Shown

router = APIRouter(prefix="/access-at", tags=["events"])
Id = Annotated[str | None, Query(max_length=64)]


class CouldShown(Shown):
    """A grant that covered the moment; `suspended`: somebody or something of it was shut out then."""

    grant: str
    dataset: str
    role: str
    slice: str | None
    holder: str
    holder_name: str
    purpose: str
    starts_at: datetime
    ends_at: datetime
    suspended: bool


class DidShown(Shown):
    """A lease that was live at the moment."""

    lease: str
    kind: str
    dataset: str
    holder: str
    grant: str
    rule: str
    policy_revision: int
    issued_at: datetime
    ended_at: datetime


class AccessAtShown(Shown):
    """Who could, who did; `revision` is of the rules then in force, `cut` says that there is more."""

    at: datetime
    revision: int | None
    could: list[CouldShown]
    did: list[DidShown]
    cut: bool


@router.get("", operation_id="show_access_at")
def show_access_at(
    caller: CallerNow,
    parts: PartsNow,
    at: Annotated[AwareDatetime, Query(description="The moment.")],
    dataset: Id = None,
    person: PersonFilter = None,
    vendor: VendorFilter = None,
) -> AccessAtShown:
    """Who could reach a dataset (or what a person or vendor could reach) at a moment, and who did. For auditors."""
    with parts.database.transaction() as tx:
        whom = person_meant(tx, caller, person or "", "query/person")
        about = About(dataset, whom, vendor_meant(tx, caller, vendor or "", "query/vendor"))
        return AccessAtShown.model_validate(access_at(tx, caller, at, about))
