"""`/people/{id}`: a person's way to a second factor, from an admin's side: a first one, or a new one after a loss."""

from __future__ import annotations

from fastapi import APIRouter

from broker.identity import invitations
from broker.identity.invitations import enrol_link
from broker.identity.permissions import require_admin
from broker.models import Proposal
from broker.registry import people
from broker.registry.people import PEOPLE
from broker.web.api.invitations import LinkMade
from broker.web.api.verbs import At, verb
from broker.web.proposed import ProposalMade

router = APIRouter(prefix="/people", tags=["people"])


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
