"""People and the roles they hold across the organisation or a vendor. How they sign in is `broker.identity`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import func, select, update

from broker.base import words
from broker.base.database import Transaction, clock, one_at_a_time
from broker.base.errors import Conflict, Forbidden, Invalid
from broker.base.ids import new_id
from broker.identity import invitations
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Menu, Noun, Search
from broker.identity.permissions import is_lead, looks_after_people, manages_people, missing, people_seen, require_admin
from broker.log import audit
from broker.models import Event, Person, Proposal, RoleHeld, Vendor
from broker.registry import proposals
from broker.registry.naming import each_told_apart, party, people_met, vendor_filter
from broker.revocation import ending

FEWEST_ADMINS = 2
# Two people must give these, so they go through a proposal; `lead` is one vendor's affair.
TWO_PERSON_ROLES = ("admin", "auditor")
# More than one chooses from in a list.
MOST_CHOICES = 2000


PEOPLE = Noun(
    "person",
    "people",
    "pe",
    Person,
    about="People of the organisation and of vendors.",
    menu=Menu("People", manages_people),
    display=Display(
        columns="id!, name, vendor!, status, roles",
        none="Nobody.",
        details="id, name, e-mail=email, vendor, status, roles, issuer, since=created_at@",
    ),
    seen=people_seen,
    called=party(Person.id),
    named_to=people_met,
    filters=(
        vendor_filter(Person.vendor_id),
        Filter("status", Literal["pending", "active", "suspended", "refused"], Person.status),
    ),
    search=Search(
        (Person.name, Person.email),
        lambda found: (found.id, found.name or found.email or found.id, found.email),
        by_name=looks_after_people,
    ),
    events={
        "person.confirmed": "{who} confirmed the identity of {whom}.",
        "person.joined": "{who} joined.",
        "person.refused": "{who} refused {whom}, who had joined.",
        "person.resumed": "{who} resumed {whom}.",
        "person.suspended": "{who} suspended {whom}.",
        "role.given": "{who} assigned the role {role} to {whom}.",
        "role.taken": "{who} removed the role {role} from {whom}.",
    },
)
person = PEOPLE.one


def roles_of(tx: Transaction, people: Sequence[str]) -> dict[str, list[str]]:
    """The roles each of these people holds now."""
    held: dict[str, list[str]] = {person_id: [] for person_id in people}
    now_held = proposals.role_held(func.clock_timestamp())
    query = select(RoleHeld.person_id, RoleHeld.role).where(RoleHeld.person_id.in_(people), now_held)
    for person_id, role in tx.execute(query.order_by(RoleHeld.role)):
        held[person_id].append(role)
    return held


def vendor_names(tx: Transaction, people: Collection[str]) -> dict[str, str]:
    """What the vendor of each of these people is called; the organisation's own are left out."""
    query = select(Person.id, Vendor.name).join(Vendor, Vendor.id == Person.vendor_id)
    return {row.id: row.name for row in tx.execute(query.where(Person.id.in_(people)))}


def choices(tx: Transaction, vendor_ids: Collection[str] | None = None) -> dict[str, str]:
    """Active people to choose from, by id: those of these vendors, or else the organisation's own."""
    of = Person.vendor_id.is_(None) if vendor_ids is None else Person.vendor_id.in_(vendor_ids)
    query = select(Person).where(of, Person.status == "active").order_by(Person.name, Person.id)
    return each_told_apart(tx.scalars(query.limit(MOST_CHOICES)))


def confirm_person(tx: Transaction, caller: Caller, person_id: str, now: datetime) -> Person:
    """Say that somebody who joined is who the invitation was meant for.

    Raises:
        Forbidden: no admin.
        Conflict: they do not wait, or the caller invited them: whoever could do both could make themselves an
            accomplice.
    """
    require_admin(caller)
    found = person(tx, caller, person_id)
    if found.invited_by == caller.id:
        raise Conflict("You invited this person.", advice="Another admin must confirm them.", code="self_decision")
    return PEOPLE.reopen(tx, caller, found, "person.confirmed", "", now, before="pending")


def refuse_joiner(tx: Transaction, caller: Caller, person_id: str, reason: str, now: datetime) -> Person:
    """Turn away somebody who joined and is not who the invitation was meant for; a new invitation lets them try anew.

    Raises:
        Forbidden: neither an admin nor the lead of the same vendor.
        Conflict: they do not wait to be confirmed.
    """
    found = person(tx, caller, person_id)
    if not (caller.is_admin or is_lead(caller, found.vendor_id)):
        raise Forbidden("Only admins and the lead of the same vendor can refuse people.")
    return ending.refuse_joiner(tx, found, caller, words.prose(reason, "/reason"), now)


def resume_person(tx: Transaction, caller: Caller, person_id: str, reason: str, now: datetime) -> Person:
    """Lift a suspension; no session and no lease comes back. Who was never confirmed waits for that again."""
    reason = words.prose(reason, "/reason")
    require_admin(caller)
    found = person(tx, caller, person_id)
    status = "pending" if _never_confirmed(tx, found) else "active"
    return PEOPLE.reopen(tx, caller, found, "person.resumed", reason, now, status=status)


def suspend_person(tx: Transaction, caller: Caller, person_id: str, reason: str, now: datetime) -> list[str]:
    """Shut a person out at once; returns the ids of the leases now ending.

    Raises:
        Forbidden: neither an admin nor the lead of the same vendor.
        Conflict: too few admins would be left.
    """
    found = person(tx, caller, person_id)
    if not (caller.is_admin or is_lead(caller, found.vendor_id)):
        raise Forbidden("Only admins and the lead of the same vendor can suspend people.")
    _keep_admins(tx, person_id)
    return ending.suspend_person(tx, person_id, caller, words.prose(reason, "/reason"), now)


def check_role(tx: Transaction, caller: Caller, person_id: str, role: str) -> Person:
    """Check that a role may be given to this person; giving `admin` or `auditor` then takes a second admin.

    Raises:
        Invalid: `lead` is for a vendor's people, the other roles for the organisation's.
        Conflict: they are the caller, not active, or hold it.
    """
    require_admin(caller)
    found = person(tx, caller, person_id)
    if person_id == caller.id:
        raise Conflict("You cannot assign a role to yourself.", advice="Ask another admin.", code="self_decision")
    if (role == "lead") != (found.vendor_id is not None):
        raise Invalid("A vendor's people can be `lead`; the organisation's can be `admin` or `auditor`.", field="/role")
    if found.status != "active":
        raise Conflict(f"This person is {found.status}; only active people can have roles.")
    if role in roles_of(tx, [person_id])[person_id]:
        raise Conflict(f"This person already has the role {role}.")
    return found


def give_role(
    tx: Transaction,
    caller: Caller,
    person_id: str,
    role: str,
    now: datetime,
    *,
    lifetime: timedelta = proposals.LIFETIME,
) -> Proposal | None:
    """Make somebody a lead of their vendor; `admin` and `auditor` become a proposal to a second admin."""
    if role not in (*TWO_PERSON_ROLES, "lead"):
        raise Invalid("Choose a role.", field="/role")
    check_role(tx, caller, person_id, role)
    if role in TWO_PERSON_ROLES:
        details = {"person_id": person_id, "role": role}
        return proposals.propose(tx, "give_role", person_id, details, caller, now, lifetime=lifetime)
    _give(tx, person_id, role, caller.id, now)
    return None


def _give(tx: Transaction, person_id: str, role: str, given_by: str | None, now: datetime, **details: str) -> None:
    tx.add(RoleHeld(id=new_id("rh"), person_id=person_id, role=role, given_by=given_by, given_at=now))
    tx.flush()
    said = {"role": role, **details}
    audit.record(tx, "role.given", actor=f"person:{given_by}", subject=person_id, now=now, details=said)


def propose_factor_reset(
    tx: Transaction, caller: Caller, person_id: str, now: datetime, *, lifetime: timedelta = proposals.LIFETIME
) -> Proposal:
    """Propose to remove a person's second factors and end its sessions; a second admin must agree. For admins."""
    require_admin(caller)
    person(tx, caller, person_id)
    if not invitations.has_factor(tx, person_id):
        raise Conflict("This person has no second factor.", advice="Make an enrolment link instead.")
    details = {"person_id": person_id}
    return proposals.propose(tx, "reset_factor", person_id, details, caller, now, lifetime=lifetime)


def take_role(tx: Transaction, caller: Caller, person_id: str, role: str, now: datetime) -> None:
    """End a role. One admin may do that, as long as two are left.

    Raises:
        NotFound: no such person, or they do not hold it.
        Conflict: too few admins would be left.
    """
    require_admin(caller)
    person(tx, caller, person_id)
    if role == "admin":
        _keep_admins(tx, person_id)
    held = update(RoleHeld).where(RoleHeld.person_id == person_id, RoleHeld.role == role, RoleHeld.ended_at.is_(None))
    if tx.scalar(held.values(ended_at=now).returning(RoleHeld.id)) is None:
        raise missing("role")
    audit.record(tx, "role.taken", actor=caller.subject, subject=person_id, now=now, details={"role": role})


def _never_confirmed(tx: Transaction, found: Person) -> bool:
    """Whether somebody joined by a person's invitation and was suspended before an admin confirmed them."""
    if found.invited_by is None:
        return False
    about = select(Event.kind).where(Event.subject == found.id, Event.kind.in_(("person.joined", "person.confirmed")))
    return set(tx.scalars(about)) == {"person.joined"}


def _keep_admins(tx: Transaction, person_id: str) -> None:
    # Two admins leaving at the same moment would each still count the other.
    one_at_a_time(tx, "admins")
    admins = proposals.active_admins(tx, clock(tx))
    if person_id in admins and len(admins) <= FEWEST_ADMINS:
        raise Conflict(
            f"At least {FEWEST_ADMINS} admins must remain, because many changes need two.",
            advice="Make another person an admin first.",
        )


def perform_give_role(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `give_role`; its details hold `person_id` and `role`.

    Raises:
        Conflict: what was so at the proposal is so no longer: not active, not the organisation's, or holds it.
    """
    person_id, role = agreed.details["person_id"], agreed.details["role"]
    if role not in TWO_PERSON_ROLES:
        raise Invalid("There is no such role of the organisation.", field="/role")
    person = tx.scalars(select(Person).where(Person.id == person_id).with_for_update()).one_or_none()
    if person is None:
        raise missing("person")
    if person.status != "active" or person.vendor_id is not None:
        raise Conflict("Only active people of the organisation can have this role.")
    # A role held for a time only ends, whether that is over or not: what two admins give holds without end.
    same = (RoleHeld.person_id == person_id, RoleHeld.role == role, RoleHeld.ended_at.is_(None))
    held = tx.scalars(select(RoleHeld).where(*same)).one_or_none()
    if held is not None and held.until is None:
        raise Conflict(f"This person already has the role {role}.")
    if held is not None:
        held.ended_at = now
        tx.flush()
    _give(tx, person_id, role, agreed.decided_by, now, proposed_by=agreed.proposed_by)
