"""`/access-at`: who could reach what at a moment in the past, who did, and under which rules."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from broker.auditing.access_at import About, AccessAt, access_at
from broker.registry.naming import person_meant, vendor_meant
from broker.web.api.common import PersonFilter, VendorFilter
from broker.web.api.verbs import At, verb

router = APIRouter(prefix="/access-at", tags=["events"])
Id = Annotated[str | None, Query(max_length=64)]


@verb(router, "GET", "", AccessAt)
def show_access_at(
    at: At,
    moment: Annotated[AwareDatetime, Query(alias="at", description="The moment.")],
    dataset: Id = None,
    person: PersonFilter = None,
    vendor: VendorFilter = None,
) -> AccessAt:
    """Who could reach a dataset (or what a person or vendor could reach) at a moment, and who did. For auditors."""
    whom = person_meant(at.tx, at.caller, person or "", "query/person")
    about = About(dataset, whom, vendor_meant(at.tx, at.caller, vendor or "", "query/vendor"))
    return access_at(at.tx, at.caller, moment, about)
