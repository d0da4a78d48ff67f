"""`/people/{id}`: a person's way to a second factor, from an admin's side: a first one, or a new one after a loss."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter

from broker.base.database import now as clock
from broker.base.errors import Conflict
from broker.identity import invitations
from broker.identity.invitations import enrol_link
from broker.identity.permissions import require_admin
from broker.registry import people, proposals
from broker.web.api.common import FreshCaller, PartsNow
from broker.web.api.invitations import LinkMade
from broker.web.api.sources import Proposed

router = APIRouter(prefix="/people", tags=["people"])


@router.post("/{person_id}/enrolment-invitations", operation_id="invite_to_enrol", status_code=201)
def invite_to_enrol(person_id: str, caller: FreshCaller, parts: PartsNow) -> LinkMade:
    """Make a one-time link by which somebody without a second factor enrols the first. For admins."""
    require_admin(caller)
    with parts.database.transaction() as tx:
        people.person(tx, caller, person_id)
        lifetime = parts.settings.invitation_lifetime
        made, token = invitations.invite_to_enrol(tx, caller.subject, person_id, lifetime, clock(tx))
    return LinkMade(id=made.id, link=enrol_link(parts, token), expires_at=made.expires_at)


@router.post("/{person_id}/reset-factor", operation_id="propose_factor_reset", status_code=202)
def propose_factor_reset(person_id: str, caller: FreshCaller, parts: PartsNow) -> Proposed:
    """Propose to remove a person's second factors and end its sessions; a second admin must agree. For admins."""
    require_admin(caller)
    with parts.database.transaction() as tx:
        people.person(tx, caller, person_id)
        if not invitations.has_factor(tx, person_id):
            raise Conflict("This person has no second factor.", advice="Make an enrolment link instead.")
        lifetime = timedelta(seconds=parts.settings.proposal_lifetime)
        details = {"person_id": person_id}
        made = proposals.propose(tx, "reset_factor", person_id, details, caller, clock(tx), lifetime=lifetime)
    return Proposed(id=made.id, state=made.state, lapses_at=made.lapses_at)
