"""Teams: sets of people of one vendor that a grant can name."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Conflict, Forbidden, Invalid
from broker.base.ids import is_id, new_id
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Menu, Noun, Search
from broker.identity.permissions import is_lead, looks_after_people, manages_people, missing, teams_seen
from broker.log import audit
from broker.models import Person, Proposal, Team, TeamMember
from broker.registry import proposals
from broker.registry.approvers import datasets_of_holder
from broker.registry.naming import vendor_filter
from broker.registry.people import MOST_CHOICES, person
from broker.registry.vendors import vendor
from broker.revocation import ending

LARGEST = 1000


TEAMS = Noun(
    "team",
    "teams",
    "te",
    Team,
    about="Groups of people of one vendor.",
    menu=Menu("Teams", manages_people),
    display=Display(
        columns="id!, name, vendor!, since=created_at@",
        none="No teams. Next: guestkey team new NAME",
        details="id, name, vendor, since=created_at@",
    ),
    seen=teams_seen,
    called=Team.name,
    filters=(vendor_filter(Team.vendor_id),),
    search=Search((Team.name,), lambda found: (found.id, found.name, ""), by_name=looks_after_people),
    plain=("made",),
    events={
        "team.member_added": "{who} added {person} to the team {whom}.",
        "team.member_not_added": "{who} confirmed {person}, who could not be added to the team {whom}.",
        "team.member_removed": "{who} removed {person} from the team {whom}.",
    },
)
team = TEAMS.one


def choices(tx: Transaction, vendor_ids: Collection[str]) -> list[Team]:
    """The teams of these vendors to choose from, by name."""
    query = select(Team).where(Team.vendor_id.in_(vendor_ids)).order_by(Team.name)
    return list(tx.scalars(query.limit(MOST_CHOICES)))


def teams_of(tx: Transaction, people: Collection[str]) -> dict[str, list[str]]:
    """The ids of the teams each of these people is in."""
    found: dict[str, list[str]] = {id_: [] for id_ in people}
    for person_id, team_id in tx.execute(
        select(TeamMember.person_id, TeamMember.team_id)
        .where(TeamMember.person_id.in_(found))
        .order_by(TeamMember.team_id)
    ):
        found[person_id].append(team_id)
    return found


def members_of(tx: Transaction, found: Team) -> list[Person]:
    """The people in a team, by name."""
    query = select(Person).join(TeamMember, TeamMember.person_id == Person.id).where(TeamMember.team_id == found.id)
    return list(tx.scalars(query.order_by(Person.name, Person.id)))


def add_team(tx: Transaction, caller: Caller, vendor_id: str, name: str, now: datetime) -> Team:
    """Make an empty team at a vendor."""
    of = vendor(tx, caller, vendor_id)
    if not (caller.is_admin or is_lead(caller, of.id)):
        raise Forbidden("Only admins and a vendor's lead can create teams.")
    name = words.name(name, "/name")
    new = insert(Team).values(id=new_id("te"), vendor_id=of.id, name=name, created_at=now)
    new = new.on_conflict_do_nothing(index_elements=["vendor_id", "name"])
    made = tx.scalars(new.returning(Team)).one_or_none()
    if made is None:
        raise Conflict("This vendor already has a team with that name.")
    details = {"vendor": of.id}
    personal = {"name": name}
    audit.record(tx, "team.made", actor=caller.subject, subject=made.id, now=now, details=details, personal=personal)
    return made


def add_member(
    tx: Transaction,
    caller: Caller,
    team_id: str,
    person_id: str,
    now: datetime,
    *,
    lifetime: timedelta = proposals.LIFETIME,
) -> Proposal | None:
    """Put a person into a team; twice is fine.

    While the team holds a grant, joining it gives access: an admin or the vendor's lead then proposes it, and the
    owner of what was granted or another admin agrees.

    Raises:
        Conflict: oneself, a person who is not active, or a full team.
    """
    into = team(tx, caller, team_id)
    _check_may_add(caller, into, person_id)
    _check_fits(tx, into, person(tx, caller, person_id))
    datasets = datasets_of_holder(tx, team_id=into.id)
    if tx.get(TeamMember, (into.id, person_id)) is not None:
        return None
    if datasets:
        details = {"datasets": datasets, "team": into.id, "person": person_id, "vendor": into.vendor_id}
        return proposals.propose(tx, "add_member", into.id, details, caller, now, lifetime=lifetime)
    _insert(tx, caller.subject, into.id, person_id, now)
    return None


def join_as_invited(tx: Transaction, caller: Caller, team_id: str, person_id: str, now: datetime) -> None:
    """Put somebody into the team their invitation names: who invited and who confirms them are the two people.

    Raises:
        Conflict: the team is full.
    """
    into = team(tx, caller, team_id)
    _check_may_add(caller, into, person_id)
    _check_fits(tx, into, person(tx, caller, person_id))
    _insert(tx, caller.subject, into.id, person_id, now)


def perform_join(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `add_member`; see `add_member`.

    Raises:
        Conflict: the person is not active any more, the team is full, or was granted more meanwhile.
    """
    into, person_id = tx.get_one(Team, agreed.details["team"]), agreed.details["person"]
    _check_fits(tx, into, tx.get_one(Person, person_id))
    if not set(datasets_of_holder(tx, team_id=into.id)) <= set(agreed.details["datasets"]):
        raise Conflict(
            "The team has got more grants since this was proposed.", advice="Refuse this, and propose it again."
        )
    _insert(tx, agreed.approver, into.id, person_id, now, proposed_by=agreed.proposed_by)


def _check_fits(tx: Transaction, into: Team, who: Person) -> None:
    if who.vendor_id != into.vendor_id:
        raise Invalid("This person does not belong to the team's vendor.", field="/person")
    if who.status != "active":
        raise Conflict(f"This person is {who.status}; only active people can join teams.")
    # The team's row orders joins and grants: a grant made meanwhile is seen by us, or sees us.
    tx.execute(select(Team.id).where(Team.id == into.id).with_for_update())
    size = tx.execute(select(func.count()).where(TeamMember.team_id == into.id)).scalar_one()
    if size >= LARGEST:
        raise Conflict(f"A team has at most {LARGEST} people.", advice="Create a second team.")


def _insert(tx: Transaction, actor: str, team_id: str, person_id: str, now: datetime, *, proposed_by: str = "") -> None:
    member = insert(TeamMember).values(team_id=team_id, person_id=person_id, added_at=now).on_conflict_do_nothing()
    if tx.scalar(member.returning(TeamMember.team_id)):
        details = {"person": person_id} | ({"proposed_by": proposed_by} if proposed_by else {})
        audit.record(tx, "team.member_added", actor=actor, subject=team_id, now=now, details=details)


def remove_member(tx: Transaction, caller: Caller, team_id: str, person_id: str, now: datetime) -> list[str]:
    """Take a person out of a team; returns the ids of the leases now ending."""
    of = team(tx, caller, team_id)
    if not (caller.is_admin or is_lead(caller, of.vendor_id) or caller.id == person_id):
        raise Forbidden("Only admins, the vendor's lead and the person can remove a person from a team.")
    if not is_id(person_id):
        raise missing("person")
    return ending.leave_team(tx, of.id, person_id, caller, now)


def team_of(tx: Transaction, caller: Caller, vendor_id: str, named: str) -> Team:
    """One team of a vendor, by its id or its name.

    Raises:
        NotFound: the vendor has none of that name that the caller may see.
    """
    query = select(Team).where(teams_seen(caller), Team.vendor_id == vendor_id)
    query = query.where(Team.id == named if is_id(named) else Team.name == named)
    found = tx.scalars(query).one_or_none()
    if found is None:
        raise missing("team")
    return found


def check_may_fill(tx: Transaction, caller: Caller, into: Team) -> None:
    """Check that the caller may let others into a team by an invitation.

    Raises:
        Forbidden: neither an admin nor the vendor's lead, or a lead and the team carries a grant.
    """
    _check_manages(caller, into)
    if not caller.is_admin and datasets_of_holder(tx, team_id=into.id):
        raise Forbidden("This team has a grant, so joining it gives access.", advice="Ask an admin to add this person.")


def _check_may_add(caller: Caller, into: Team, person_id: str) -> None:
    if person_id == caller.id:
        raise Conflict("You cannot add yourself to a team.", advice="Ask an admin.", code="self_decision")
    _check_manages(caller, into)


def _check_manages(caller: Caller, into: Team) -> None:
    if not (caller.is_admin or is_lead(caller, into.vendor_id)):
        raise Forbidden("Only admins and the vendor's lead can add people to a team.")
