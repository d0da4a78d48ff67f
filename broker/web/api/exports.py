"""`/people/export`, `/grants/export`, `/leases/export`: whole lists as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from broker.base.database import Transaction
from broker.base.paging import Window
from broker.leases import holdings
from broker.models import Person, Team, TeamMember, Vendor
from broker.registry import people
from broker.registry.naming import vendor_meant
from broker.web import listing
from broker.web.api.common import CallerNow, PartsNow, PersonFilter, VendorFilter
from broker.web.api.holding_shapes import GrantShown, LeaseShown, grants_shown, leases_shown
from broker.web.api.leases import State as LeaseState
from broker.web.api.people import Status
from broker.web.listing import Listing

router = APIRouter()
_PEOPLE = ("id", "name", "email", "vendor", "vendor_name", "status", "roles", "teams", "issuer", "created_at")
_GRANTS = tuple(GrantShown.model_fields)
# How a kind of credential ends is the same for each of its leases, and no cell's worth.
_LEASES = tuple(name for name in LeaseShown.model_fields if name != "ending")
_FILES: dict[int | str, dict[str, Any]] = {200: {"content": {media: {} for media in listing.MEDIA.values()}}}

FormNow = Annotated[listing.Form, Query(alias="format", description="A table, or one JSON document a line.")]
Word = Annotated[str | None, Query(max_length=64)]


@router.get(
    "/people/export",
    operation_id="export_people",
    tags=["people"],
    response_class=StreamingResponse,
    responses=_FILES,
)
def export_people(
    caller: CallerNow,
    parts: PartsNow,
    vendor: VendorFilter = None,
    status: Annotated[Status | None, Query()] = None,
    form: FormNow = "csv",
) -> StreamingResponse:
    """Everybody of exactly this filter whom you may see, with roles and teams; recorded as an event."""

    def read(tx: Transaction, window: Window) -> listing.Rows:
        vendor_id = vendor_meant(tx, caller, vendor or "", "query/vendor")
        page = people.list_people(tx, caller, window, vendor_id=vendor_id, status=status)
        return _people(tx, page.items), page.next_cursor

    return listing.answer(parts, caller, Listing("people", _PEOPLE, read), form)


@router.get(
    "/grants/export",
    operation_id="export_grants",
    tags=["grants"],
    response_class=StreamingResponse,
    responses=_FILES,
)
def export_grants(
    caller: CallerNow,
    parts: PartsNow,
    person: PersonFilter = None,
    dataset: Word = None,
    state: Annotated[Literal["current", "ended"] | None, Query()] = None,
    form: FormNow = "csv",
) -> StreamingResponse:
    """Every grant of exactly this filter that you may see; recorded as an event."""
    filters = holdings.Filters(dataset=dataset, person=person, state=state)

    def read(tx: Transaction, window: Window) -> listing.Rows:
        page = holdings.list_grants(tx, caller, window, holdings.with_ids(tx, caller, filters))
        return [item.model_dump(mode="json") for item in grants_shown(tx, page.items)], page.next_cursor

    return listing.answer(parts, caller, Listing("grants", _GRANTS, read), form)


@router.get(
    "/leases/export",
    operation_id="export_leases",
    tags=["leases"],
    response_class=StreamingResponse,
    responses=_FILES,
)
def export_leases(
    caller: CallerNow,
    parts: PartsNow,
    state: Annotated[LeaseState | None, Query(description="`live`: any state before the end.")] = None,
    dataset: Word = None,
    person: PersonFilter = None,
    form: FormNow = "csv",
) -> StreamingResponse:
    """Every lease of exactly this filter that you may see; never a secret. Recorded as an event."""
    filters = holdings.Filters(dataset=dataset, person=person, state=state)

    def read(tx: Transaction, window: Window) -> listing.Rows:
        page = holdings.list_leases(tx, caller, window, holdings.with_ids(tx, caller, filters))
        return [item.model_dump(mode="json") for item in leases_shown(tx, page.items)], page.next_cursor

    return listing.answer(parts, caller, Listing("leases", _LEASES, read), form)


def _people(tx: Transaction, found: Sequence[Person]) -> list[Mapping[str, Any]]:
    ids = [item.id for item in found]
    roles = people.roles_of(tx, ids)
    vendors = {item.vendor_id for item in found if item.vendor_id}
    names = dict(tx.execute(select(Vendor.id, Vendor.name).where(Vendor.id.in_(vendors))).all())
    teams: dict[str, list[str]] = {id_: [] for id_ in ids}
    membership = select(TeamMember.person_id, Team.id).join(Team).where(TeamMember.person_id.in_(ids))
    for person_id, team_id in tx.execute(membership.order_by(Team.id)):
        teams[person_id].append(team_id)
    return [
        {
            "id": item.id,
            "name": item.name,
            "email": item.email,
            "vendor": item.vendor_id,
            "vendor_name": names.get(item.vendor_id or ""),
            "status": item.status,
            "roles": roles[item.id],
            "teams": teams[item.id],
            "issuer": item.issuer,
            "created_at": item.created_at.isoformat(),
        }
        for item in found
    ]
