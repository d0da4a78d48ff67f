"""`/people`: humans of the organisation and of vendors, their roles, and their way to a first or new factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from broker.base import bulk_lines, csv_lines, words
from broker.base.errors import Invalid
from broker.identity import invitations
from broker.identity.invitations import INVITATIONS, enrol_link, join_link
from broker.identity.permissions import require_admin
from broker.models import Invitation, Person, Proposal
from broker.registry import bulk_invitations, people, teams
from broker.registry.naming import names_of
from broker.registry.people import PEOPLE
from broker.suspensions import suspending
from broker.web.api.common import At, FreshCaller, Id, PartsNow, ProposalMade, ReasonBody, Shown, Strict, VendorId, verb
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
from broker.web.api.suspensions import SuspendBody, Suspended, suspend

joining = APIRouter(prefix="/invitations", tags=["invitations"])


class InvitationShown(Shown):
    """An invitation; its link was shown when it was made, and never again."""

    id: str
    purpose: str
    source: Annotated[str | None, Field(validation_alias="source_id")]
    vendor: VendorId
    person: Annotated[str | None, Field(validation_alias="person_id")]
    role: Annotated[str | None, Field(validation_alias="org_role")]
    label: str
    created_by: str | None
    created_at: datetime
    expires_at: datetime
    redeemed_at: datetime | None
    redeemed_by: str | None


class InvitationBody(Strict):
    """Whom to let join: through which source, and a label that reminds the confirming admin who is meant."""

    source: Id
    vendor: Id | None = None
    label: Annotated[str, Field(min_length=1, max_length=200, examples=["Ada Lovelace, annotation lead"])]


class LinkMade(BaseModel):
    """The link, shown once. Send it on a way you trust."""

    id: str
    link: str
    expires_at: datetime


add_list(
    joining,
    INVITATIONS,
    InvitationShown,
    "Invitations, newest first. Admins and auditors see all, a lead those to its vendor.",
)


@verb(joining, "POST", "", LinkMade, status=201, fresh=True)
def invite(at: At, body: InvitationBody) -> LinkMade:
    """Make a link that lets one person join the source's party. For admins, and a vendor's lead for its own staff."""
    label = words.name(body.label, "/label", longest=200)
    lifetime = at.parts.settings.invitation_lifetime
    made, token = invitations.invite_to_join(at.tx, at.caller, body.source, label, lifetime, at.now)
    if body.vendor is not None and made.vendor_id != body.vendor:
        raise Invalid("This source is not that vendor's.", field="/vendor")
    return LinkMade(id=made.id, link=join_link(at.parts, token), expires_at=made.expires_at)


@verb(
    joining,
    "POST",
    "/{invitation_id}/end",
    InvitationShown,
    command=("invitation end", "The invitation link {id} no longer works."),
)
def end_invitation(at: At, invitation_id: str) -> Invitation:
    """End an unused invitation link. For admins, and a vendor's lead for its own staff."""
    return invitations.end_unused(at.tx, at.caller, invitation_id, at.now)


router = APIRouter(prefix="/people", tags=["people"])
Role = Literal["admin", "auditor", "lead"]


class PersonShown(Shown):
    """A person; `vendor` is null for the organisation's own."""

    id: str
    name: str
    email: str
    vendor: VendorId
    status: Literal["pending", "active", "suspended", "refused"]
    roles: list[str]
    issuer: str
    created_at: datetime


class RoleBody(Strict):
    """A role to give."""

    role: Role


def _shown(at: At, rows: Sequence[Person]) -> list[PersonShown]:
    roles = people.roles_of(at.tx, [row.id for row in rows])
    return [PersonShown.of(row, roles=roles[row.id]) for row in rows]


def _one(at: At, person: Person) -> PersonShown:
    return _shown(at, [person])[0]


def _written(at: At, rows: Sequence[Person]) -> list[Mapping[str, Any]]:
    names = names_of(at.tx, {row.vendor_id for row in rows if row.vendor_id})
    joined = teams.teams_of(at.tx, [row.id for row in rows])
    return [
        {
            **shown.model_dump(mode="json"),
            "vendor_name": names.get(shown.vendor or ""),
            "teams": joined[shown.id],
            "created_at": shown.created_at.isoformat(),
        }
        for shown in _shown(at, rows)
    ]


add_list(
    router,
    PEOPLE,
    PersonShown,
    "People, newest first. A vendor's lead sees its staff, everybody else themselves.",
    render=_shown,
    file=File(
        "Everybody of exactly this filter whom you may see, with roles and teams; recorded as an event.",
        ("id", "name", "email", "vendor", "vendor_name", "status", "roles", "teams", "issuer", "created_at"),
        _written,
    ),
)


@router.post("/import", operation_id="import_people")
def import_people(
    body: CsvBody,
    caller: FreshCaller,
    parts: PartsNow,
    source: Annotated[str | None, Query(max_length=64, description="The sign-in source they join through.")] = None,
    vendor: Annotated[str | None, Query(max_length=64, description="The vendor, if it has one source only.")] = None,
    dry_run: DryRun = False,
    keep_going: KeepGoing = False,
    again: Annotated[
        bool, Query(description="New links for people who have not used theirs; the old links stop working.")
    ] = False,
    after: After = 0,
) -> BulkReportShown:
    """Invite people by the lines of a file: `name,email,team`. For admins, and a vendor's lead for its own staff.

    At most 500 lines at once, each a transaction of its own; without `keep_going`, one refused line stops them all.
    Sent again, it invites nobody twice. The e-mail address is a label; the team is joined on being confirmed.
    """
    rows = csv_lines.read(content_of(body), bulk_invitations.COLUMNS, after=after)
    with parts.database.transaction() as tx:
        through = bulk_invitations.source_for(tx, caller, source, vendor)
    wanted = bulk_invitations.Inviting(through, again, parts.settings.invitation_lifetime)
    report = bulk_lines.run(
        parts.database, rows, bulk_invitations.task(caller, wanted), dry_run=dry_run, keep_going=keep_going
    )
    return report_shown(report, lambda token: join_link(parts, token))


add_show(router, PEOPLE, PersonShown, "One person.", render=_one)


@verb(
    router, "POST", "/{person_id}/confirm", PersonShown, fresh=True, command=("person confirm", "{name} is confirmed.")
)
def confirm_person(at: At, person_id: str) -> PersonShown:
    """Confirm that a person who joined is the one invited; they join the team the invitation names.

    For admins, except the one who invited them.
    """
    return _one(at, bulk_invitations.confirm_person(at.tx, at.caller, person_id, at.now))


@verb(
    router,
    "POST",
    "/{person_id}/refuse",
    PersonShown,
    command=("person refuse", "{name} is refused; they can join with a new invitation."),
)
def refuse_person(at: At, person_id: str, body: ReasonBody) -> PersonShown:
    """Refuse a person who joined but is not the one invited. For admins and the vendor's lead."""
    return _one(at, people.refuse_joiner(at.tx, at.caller, person_id, body.reason, at.now))


@verb(router, "POST", "/{person_id}/suspend", Suspended, status=202)
def suspend_person(at: At, person_id: str, body: SuspendBody) -> Suspended:
    """Shut a person out at once. For admins and the lead of the same vendor."""
    return suspend(at, "person", person_id, body)


@verb(router, "POST", "/{person_id}/resume", PersonShown, fresh=True)
def resume_person(at: At, person_id: str, body: ReasonBody) -> PersonShown:
    """Lift a suspension; no session and no lease comes back. For admins."""
    suspending.resume(at.tx, at.caller, "person", person_id, body.reason, at.now)
    return _one(at, PEOPLE.one(at.tx, at.caller, person_id))


@verb(router, "POST", "/{person_id}/roles", PersonShown, status=201, fresh=True, proposes=ProposalMade)
def give_role(at: At, person_id: str, body: RoleBody) -> PersonShown | Proposal:
    """Give a role: `lead` to a vendor's person at once, `admin` and `auditor` once a second admin agrees."""
    waiting = people.give_role(at.tx, at.caller, person_id, body.role, at.now, lifetime=at.lifetime)
    return waiting or _one(at, PEOPLE.one(at.tx, at.caller, person_id))


@verb(router, "DELETE", "/{person_id}/roles/{role}", status=204, fresh=True)
def take_role(at: At, person_id: str, role: Role) -> None:
    """End a role; two admins always remain. For admins."""
    people.take_role(at.tx, at.caller, person_id, role, at.now)


@verb(router, "POST", "/{person_id}/enrolment-invitations", LinkMade, status=201, fresh=True)
def invite_to_enrol(at: At, person_id: str) -> LinkMade:
    """Make a one-time link by which somebody without a second factor enrols the first. For admins."""
    require_admin(at.caller)
    PEOPLE.one(at.tx, at.caller, person_id)
    lifetime = at.parts.settings.invitation_lifetime
    made, token = invitations.invite_to_enrol(at.tx, at.caller.subject, person_id, lifetime, at.now)
    return LinkMade(id=made.id, link=enrol_link(at.parts, token), expires_at=made.expires_at)


@verb(router, "POST", "/{person_id}/reset-factor", ProposalMade, status=202, fresh=True)
def propose_factor_reset(at: At, person_id: str) -> Proposal:
    """Propose to remove a person's second factors and end its sessions; a second admin must agree. For admins."""
    return people.propose_factor_reset(at.tx, at.caller, person_id, at.now, lifetime=at.lifetime)
