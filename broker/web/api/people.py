"""`/people`: humans of the organisation and of vendors, and the roles they hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.responses import Response

from broker.base import bulk_lines, csv_lines
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.identity.invitations import join_link
from broker.models import Person
from broker.registry import bulk_invitations, people, proposals
from broker.registry.naming import vendor_meant
from broker.suspensions import suspending
from broker.web.api import bulk_shapes
from broker.web.api.common import CallerNow, FreshCaller, PartsNow, Reason, VendorFilter, WindowNow
from broker.web.api.suspensions import SuspendBody, Suspended
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/people", tags=["people"])
Status = Literal["pending", "active", "suspended", "refused"]
Role = Literal["admin", "auditor", "lead"]


class PersonShown(Shown):
    """A person; `vendor` is null for the organisation's own."""

    id: str
    name: str
    email: str
    vendor: str | None
    status: Status
    roles: list[str]
    issuer: str
    created_at: datetime


class People(BaseModel):
    """A page of people."""

    items: list[PersonShown]
    next_cursor: str | None


class RoleBody(Strict):
    """A role to give."""

    role: Role


class RoleProposed(BaseModel):
    """The role waits for a second admin."""

    id: str
    state: str
    lapses_at: datetime


@router.get("", operation_id="list_people")
def list_people(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    vendor: VendorFilter = None,
    status: Annotated[Status | None, Query()] = None,
) -> People:
    """People, newest first. A vendor's lead sees its staff, everybody else themselves."""
    with parts.database.transaction() as tx:
        vendor_id = vendor_meant(tx, caller, vendor or "", "query/vendor")
        page = people.list_people(tx, caller, window, vendor_id=vendor_id, status=status)
        return People(items=_shown(tx, page.items), next_cursor=page.next_cursor)


@router.post("/import", operation_id="import_people")
def import_people(
    body: bulk_shapes.File,
    caller: FreshCaller,
    parts: PartsNow,
    source: Annotated[str | None, Query(max_length=64, description="The sign-in source they join through.")] = None,
    vendor: Annotated[str | None, Query(max_length=64, description="The vendor, if it has one source only.")] = None,
    dry_run: bulk_shapes.DryRun = False,
    keep_going: bulk_shapes.KeepGoing = False,
    again: Annotated[
        bool, Query(description="New links for those who have not used theirs; the old ones end.")
    ] = False,
    after: bulk_shapes.After = 0,
) -> bulk_shapes.ReportShown:
    """Invite people by the lines of a file: `name,email,team`. For admins, and a vendor's lead for its own staff.

    At most 500 lines at once, each a transaction of its own; without `keep_going`, one refused line stops them all.
    Sent again, it invites nobody twice. The e-mail address is a label; the team is joined on being confirmed.
    """
    rows = csv_lines.read(bulk_shapes.content_of(body), bulk_invitations.COLUMNS, after=after)
    with parts.database.transaction() as tx:
        through = bulk_invitations.source_for(tx, caller, source, vendor)
    wanted = bulk_invitations.Inviting(through, again, parts.settings.invitation_lifetime)
    report = bulk_lines.run(
        parts.database, rows, bulk_invitations.task(caller, wanted), dry_run=dry_run, keep_going=keep_going
    )
    return bulk_shapes.report_shown(report, lambda token: join_link(parts, token))


@router.get("/{person_id}", operation_id="show_person")
def show_person(person_id: str, caller: CallerNow, parts: PartsNow) -> PersonShown:
    """One person."""
    with parts.database.transaction() as tx:
        return _shown(tx, [people.person(tx, caller, person_id)])[0]


@router.post("/{person_id}/confirm", operation_id="confirm_person")
def confirm_person(person_id: str, caller: FreshCaller, parts: PartsNow) -> PersonShown:
    """Say that somebody who joined is who the invitation was meant for; they join the team it names.

    For another admin than the one who invited them.
    """
    with parts.database.transaction() as tx:
        return _shown(tx, [bulk_invitations.confirm_person(tx, caller, person_id, clock(tx))])[0]


@router.post("/{person_id}/refuse", operation_id="refuse_person")
def refuse_person(person_id: str, body: Reason, caller: CallerNow, parts: PartsNow) -> PersonShown:
    """Turn away somebody who joined and is not who was meant. For admins and the lead of the same vendor."""
    with parts.database.transaction() as tx:
        return _shown(tx, [people.refuse_joiner(tx, caller, person_id, body.reason, clock(tx))])[0]


@router.post("/{person_id}/suspend", operation_id="suspend_person", status_code=202)
def suspend_person(person_id: str, body: SuspendBody, caller: CallerNow, parts: PartsNow) -> Suspended:
    """Shut a person out at once. For admins and the lead of the same vendor."""
    expected = body.expected.model_dump() if body.expected else None
    with parts.database.transaction() as tx:
        begun, leases = suspending.suspend(
            tx, caller, "person", person_id, body.reason, clock(tx), message=body.message, expected=expected
        )
    return Suspended(id=begun.target_id, status="suspended", leases=leases, suspension=begun.id)


@router.post("/{person_id}/resume", operation_id="resume_person")
def resume_person(person_id: str, body: Reason, caller: FreshCaller, parts: PartsNow) -> PersonShown:
    """Lift a suspension; no session and no lease comes back. For admins."""
    with parts.database.transaction() as tx:
        suspending.resume(tx, caller, "person", person_id, body.reason, clock(tx))
        return _shown(tx, [people.person(tx, caller, person_id)])[0]


@router.post(
    "/{person_id}/roles",
    operation_id="give_role",
    status_code=201,
    response_model=PersonShown,
    responses={202: {"model": RoleProposed, "description": "`admin` and `auditor` wait for a second admin."}},
)
def give_role(person_id: str, body: RoleBody, caller: FreshCaller, parts: PartsNow) -> Response:
    """Give a role: `lead` to a vendor's person at once, `admin` and `auditor` once a second admin agrees."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        if body.role not in people.TWO_PERSON_ROLES:
            people.give_lead(tx, caller, person_id, now)
            shown = _shown(tx, [people.person(tx, caller, person_id)])[0]
            return JSONResponse(shown.model_dump(mode="json"), 201)
        people.check_role(tx, caller, person_id, body.role)
        details = {"person_id": person_id, "role": body.role}
        lifetime = timedelta(seconds=parts.settings.proposal_lifetime)
        proposal = proposals.propose(tx, "give_role", person_id, details, caller, now, lifetime=lifetime)
    waiting = RoleProposed(id=proposal.id, state=proposal.state, lapses_at=proposal.lapses_at)
    return JSONResponse(waiting.model_dump(mode="json"), 202)


@router.delete("/{person_id}/roles/{role}", operation_id="take_role", status_code=204)
def take_role(person_id: str, role: Role, caller: FreshCaller, parts: PartsNow) -> None:
    """End a role; two admins always remain. For admins."""
    with parts.database.transaction() as tx:
        people.take_role(tx, caller, person_id, role, clock(tx))


def _shown(tx: Transaction, items: Sequence[Person]) -> list[PersonShown]:
    roles = people.roles_of(tx, [item.id for item in items])
    return [
        PersonShown(
            id=item.id,
            name=item.name,
            email=item.email,
            vendor=item.vendor_id,
            status=item.status,
            roles=roles[item.id],
            issuer=item.issuer,
            created_at=item.created_at,
        )
        for item in items
    ]
