"""`/invitations`: single-use links by which people join a party."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from broker.base import words
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.paging import page
from broker.identity import invitations
from broker.identity.invitations import join_link
from broker.models import Invitation
from broker.web.api.common import CallerNow, FreshCaller, Id, PartsNow, WindowNow
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/invitations", tags=["invitations"])


class InvitationShown(Shown):
    """An invitation; its link was shown when it was made, and never again."""

    id: str
    purpose: str
    source: str | None
    vendor: str | None
    person: str | None
    role: str | None
    label: str
    created_by: str | None
    created_at: datetime
    expires_at: datetime
    redeemed_at: datetime | None
    redeemed_by: str | None


class Invitations(BaseModel):
    """A page of invitations."""

    items: list[InvitationShown]
    next_cursor: str | None


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


@router.get("", operation_id="list_invitations")
def list_invitations(
    caller: CallerNow,
    parts: PartsNow,
    window: WindowNow,
    state: Annotated[Literal["unused"] | None, Query(description="`unused`: whose link still works.")] = None,
) -> Invitations:
    """Invitations, newest first. Admins and auditors see all, a lead those to its vendor."""
    with parts.database.transaction() as tx:
        query = invitations.seen_by(caller)
        if state is not None:
            query = query.where(invitations.unused(clock(tx)))
        found = page(tx, query, Invitation.id, window)
    return Invitations(items=[_shown(item) for item in found.items], next_cursor=found.next_cursor)


@router.post("", operation_id="invite", status_code=201)
def invite(body: InvitationBody, caller: FreshCaller, parts: PartsNow) -> LinkMade:
    """Make a link that lets one person join the source's party. For admins, and a vendor's lead for its own staff."""
    label = words.name(body.label, "/label", longest=200)
    with parts.database.transaction() as tx:
        made, token = invitations.invite_to_join(
            tx, caller, body.source, label, parts.settings.invitation_lifetime, clock(tx)
        )
        if body.vendor is not None and made.vendor_id != body.vendor:
            raise Invalid("This source is not that vendor's.", field="/vendor")
    return LinkMade(id=made.id, link=join_link(parts, token), expires_at=made.expires_at)


@router.post("/{invitation_id}/end", operation_id="end_invitation")
def end_invitation(invitation_id: str, caller: CallerNow, parts: PartsNow) -> InvitationShown:
    """Make a link that nobody has used worthless. For admins, and a vendor's lead for its own staff."""
    with parts.database.transaction() as tx:
        return _shown(invitations.end_unused(tx, caller, invitation_id, clock(tx)))


def _shown(item: Invitation) -> InvitationShown:
    return InvitationShown(
        id=item.id,
        purpose=item.purpose,
        source=item.source_id,
        vendor=item.vendor_id,
        person=item.person_id,
        role=item.org_role,
        label=item.label,
        created_by=item.created_by,
        created_at=item.created_at,
        expires_at=item.expires_at,
        redeemed_at=item.redeemed_at,
        redeemed_by=item.redeemed_by,
    )
