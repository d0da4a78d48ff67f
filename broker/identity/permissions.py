"""Who sees what, and who may do what, of the nouns that rooms ask about each other: the rooms and the web rest on it.

A noun that no other room asks about says who sees it in its own declaration (`seen`), and its functions who may act.

======== ================================================== ==================================================
noun     seen by                                            changed by
======== ================================================== ==================================================
vendor   the organisation's people: all; a vendor's people  add, activate, suspend, resume, offboard: admin
         and services: their own
person   admin, auditor: all; lead: their vendor's;         confirm (not whoever invited), suspend, resume,
         everybody: themselves                              roles: admin; suspend, refuse: also lead of the same
                                                            vendor
invita-  admin, auditor: all; lead: their vendor's          make, end: admin, and lead of that vendor
tion
team     admin, auditor: all; lead: their vendor's; people: make: admin, lead; add people: admin, lead, and while
         those they are in                                  the team holds a grant a second person; remove: admin,
                                                            lead
service  admin, auditor: all; lead: their vendor's; a       make: admin, lead; secret: lead, or admin and a second
         service: itself                                    person; suspend: admin, lead; resume: admin
dataset  the organisation's people: all; vendors: what is   add, slices: admin; labels, retention, owner: owner,
         offered to them; services of the organisation:     admin; what opens something: two of these; text,
         what they hold a grant on                          offers, suspend, resume: owner, admin; retire: admin
request  who asked, and for whom; owner and stewards of     ask: for oneself; for staff, a team or a service:
         the dataset; lead: their vendor's; admin,          lead of its vendor, or (organisation's service)
         auditor: all                                       admin; decide: owner, steward (not about
                                                            stewards), and an admin only where there is neither
grant    who holds it (also through a team or service);     revoke: holder, owner, steward, admin, lead of the
         owner, stewards; lead; admin, auditor              holder's vendor
lease    who holds it; owner, stewards; lead; admin,        issue: the caller for itself, through the gate;
         auditor                                            revoke: as a grant
policy   admin, auditor                                     two admins
event    admin, auditor: all; others: what they did, and    nobody
         what was done to themselves
======== ================================================== ==================================================

What somebody may not see reads exactly like what does not exist. An auditor changes nothing. Nobody decides about
themselves: not their own request, not one for a service they made, not a team they would join.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, false, func, or_, select, true

from broker.base.errors import Forbidden, NotFound
from broker.identity.caller import Caller
from broker.models import Dataset, Grant, Lease, Offer, Person, Request, Service, Team, TeamMember, Vendor

STEWARD = "steward"
Seen = ColumnElement[bool]


def sees_everything(caller: Caller) -> bool:
    """Admins and auditors."""
    return caller.is_admin or caller.is_auditor


def require_reader(caller: Caller) -> None:
    """Refuse everybody but admins and auditors."""
    if not sees_everything(caller):
        raise Forbidden("Only admins and auditors can see this.", advice="Ask an admin of the organisation.")


def everything_or_nothing(caller: Caller) -> Seen:
    """What admins and auditors see, and nobody else."""
    return true() if sees_everything(caller) else false()


def manages_people(caller: Caller) -> bool:
    """Admins, and a vendor's lead."""
    return caller.is_admin or "lead" in caller.roles


def looks_after_people(caller: Caller) -> bool:
    """Admins, auditors, and a vendor's lead."""
    return sees_everything(caller) or "lead" in caller.roles


def is_lead(caller: Caller, vendor_id: str | None) -> bool:
    """Whether the caller leads this vendor's staff."""
    return (
        caller.kind == "person" and vendor_id is not None and caller.vendor_id == vendor_id and "lead" in caller.roles
    )


def require_admin(caller: Caller) -> None:
    """Refuse everybody but admins."""
    if not caller.is_admin:
        raise Forbidden("Only admins can do this.", advice="Ask an admin of the organisation.")


def require_looks_after_people(caller: Caller, *, auditors: bool = False) -> None:
    """Refuse everybody but admins and leads (and auditors, where they may look)."""
    if not (manages_people(caller) or (auditors and caller.is_auditor)):
        raise Forbidden("Only admins and a vendor's lead can do this.", advice="Ask an admin of the organisation.")


def require_sees_rules(caller: Caller) -> None:
    """Refuse everybody but admins and auditors, who read the rules whole."""
    if not sees_everything(caller):
        raise Forbidden(
            "Only admins and auditors can see the rules.", advice="`guestkey why` explains how the rules apply to you."
        )


def is_own_service(caller: Caller) -> bool:
    """Whether the caller is a service of the organisation."""
    return caller.kind == "service" and caller.vendor_id is None


def require_own_service(caller: Caller, advice: str) -> None:
    """Refuse everybody but services of the organisation."""
    if not is_own_service(caller):
        raise Forbidden("Only services of the organisation can ask this.", advice=advice)


def missing(noun: str) -> NotFound:
    """The one answer for what does not exist and for what is not shown: never varied, or it would tell them apart."""
    return NotFound(f"There is no such {noun} here.")


def vendors_seen(caller: Caller) -> Seen:
    """See the table above."""
    if caller.vendor_id is not None:
        return Vendor.id == caller.vendor_id
    return true() if caller.kind == "person" else false()


def people_seen(caller: Caller) -> Seen:
    """See the table above."""
    if sees_everything(caller):
        return true()
    if is_lead(caller, caller.vendor_id):
        return Person.vendor_id == caller.vendor_id
    return Person.id == caller.id


def teams_seen(caller: Caller) -> Seen:
    """See the table above."""
    if sees_everything(caller):
        return true()
    if is_lead(caller, caller.vendor_id):
        return Team.vendor_id == caller.vendor_id
    return Team.id.in_(_teams_of(caller))


def services_seen(caller: Caller) -> Seen:
    """See the table above."""
    if sees_everything(caller):
        return true()
    own = Service.id == caller.id if caller.kind == "service" else false()
    return or_(own, Service.vendor_id == caller.vendor_id) if is_lead(caller, caller.vendor_id) else own


def datasets_seen(caller: Caller) -> Seen:
    """See the table above."""
    if caller.vendor_id is not None:
        return Dataset.id.in_(
            select(Offer.dataset_id).where(Offer.vendor_id == caller.vendor_id, Offer.ended_at.is_(None))
        )
    if caller.kind == "person":
        return true()
    return Dataset.id.in_(select(Grant.dataset_id).where(Grant.service_id == caller.id, _live_grant()))


def requests_seen(caller: Caller) -> Seen:
    """See the table above."""
    if sees_everything(caller):
        return true()
    asked = or_(Request.person_id == caller.id, Request.for_person_id == caller.id)
    if is_lead(caller, caller.vendor_id):
        return or_(asked, Request.person_id.in_(_people_of(caller)))
    return or_(asked, Request.dataset_id.in_(looked_after(caller))) if caller.vendor_id is None else asked


def grants_seen(caller: Caller) -> Seen:
    """See the table above."""
    if sees_everything(caller):
        return true()
    held = or_(Grant.person_id == caller.id, Grant.service_id == caller.id, Grant.team_id.in_(_teams_of(caller)))
    if is_lead(caller, caller.vendor_id):
        return or_(held, held_by_vendor(Grant, caller.vendor_id))
    return or_(held, Grant.dataset_id.in_(looked_after(caller))) if caller.vendor_id is None else held


def leases_seen(caller: Caller) -> Seen:
    """See the table above."""
    if sees_everything(caller):
        return true()
    held = or_(Lease.person_id == caller.id, Lease.service_id == caller.id)
    if is_lead(caller, caller.vendor_id):
        return or_(held, held_by_vendor(Lease, caller.vendor_id))
    return or_(held, Lease.dataset_id.in_(looked_after(caller))) if caller.vendor_id is None else held


def held_by_vendor(record: type[Grant] | type[Lease], vendor_id: str | None) -> Seen:
    """Whether a grant or lease is held by a person, team or service of a vendor."""
    holders = ((Person, "person_id"), (Team, "team_id"), (Service, "service_id"))
    return or_(
        *(
            getattr(record, column).in_(select(holder.id).where(holder.vendor_id == vendor_id))
            for holder, column in holders
            if hasattr(record, column)
        )
    )


def looked_after(caller: Caller) -> Select[str]:
    """The ids of datasets whose owner or steward the caller is; stewards of vendors have no such say."""
    if caller.kind != "person" or caller.vendor_id is not None:
        return select(Dataset.id).where(false())
    stewarded = stewards_of().where(Grant.person_id == caller.id).with_only_columns(Grant.dataset_id)
    return select(Dataset.id).where(or_(Dataset.owner_id == caller.id, Dataset.id.in_(stewarded)))


def stewards_of() -> Select[str | None]:
    """The organisation's people who hold the role of steward now; add a dataset to the condition."""
    ours = select(Person.id).where(Person.vendor_id.is_(None), Person.status == "active")
    return select(Grant.person_id).where(Grant.role == STEWARD, _live_grant(), Grant.person_id.in_(ours))


def _live_grant() -> Seen:
    moment = func.clock_timestamp()
    return Grant.revoked_at.is_(None) & (Grant.starts_at <= moment) & (Grant.ends_at > moment)


def _teams_of(caller: Caller) -> Select[str]:
    return select(TeamMember.team_id).where(TeamMember.person_id == caller.id)


def _people_of(caller: Caller) -> Select[str]:
    return select(Person.id).where(Person.vendor_id == caller.vendor_id)
