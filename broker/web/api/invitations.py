"""`/invitations`: single-use links by which people join a party."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from broker.base import words
from broker.base.errors import Invalid
from broker.identity import invitations
from broker.identity.invitations import INVITATIONS, join_link
from broker.models import Invitation
from broker.web.api.common import Id, Shown, Strict, VendorId
from broker.web.api.reading import add_list
from broker.web.api.verbs import At, verb

router = APIRouter(prefix="/invitations", tags=["invitations"])


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
    router,
    INVITATIONS,
    InvitationShown,
    "Invitations, newest first. Admins and auditors see all, a lead those to its vendor.",
)


@verb(router, "POST", "", LinkMade, status=201, fresh=True)
def invite(at: At, body: InvitationBody) -> LinkMade:
    """Make a link that lets one person join the source's party. For admins, and a vendor's lead for its own staff."""
    label = words.name(body.label, "/label", longest=200)
    lifetime = at.parts.settings.invitation_lifetime
    made, token = invitations.invite_to_join(at.tx, at.caller, body.source, label, lifetime, at.now)
    if body.vendor is not None and made.vendor_id != body.vendor:
        raise Invalid("This source is not that vendor's.", field="/vendor")
    return LinkMade(id=made.id, link=join_link(at.parts, token), expires_at=made.expires_at)


@verb(
    router,
    "POST",
    "/{invitation_id}/end",
    InvitationShown,
    command=("invitation end", "The invitation link {id} no longer works."),
)
def end_invitation(at: At, invitation_id: str) -> Invitation:
    """End an unused invitation link. For admins, and a vendor's lead for its own staff."""
    return invitations.end_unused(at.tx, at.caller, invitation_id, at.now)
