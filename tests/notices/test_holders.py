"""Who asked and who holds are told apart, in whatever way the access was given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.base import bulk_lines
from broker.base.csv_lines import read
from broker.base.database import clock
from broker.models import Delivery
from broker.registry import people
from broker.requests import approving, bulk_grants, requests
from broker.requests.approving import Narrowing
from broker.requests.requests import NewRequest
from tests.notices.conftest import Office
from tests.notices.test_channels import bind, sent
from tests.support.world import Signed, World


class Vendors:
    """A lead with staff, a team and a service, and a dataset offered to their vendor."""

    def __init__(self, world: World) -> None:
        self.world, self.vendor = world, world.vendor()
        self.owner = world.person(name="Olga Owner")
        self.lead = world.person(self.vendor, roles=("lead",), name="Lena Lead")
        self.other_lead = world.person(self.vendor, roles=("lead",), name="Leo Lead")
        self.staff = world.person(self.vendor, name="Sam Staff")
        self.member = world.person(self.vendor, name="Mia Member")
        self.service, self.team = world.service(self.vendor), world.team(self.vendor, self.member)
        self.dataset = world.dataset(self.vendor, owner=self.owner, register=False)

    def asked(self, role: str = "annotator", **holder: Any) -> str:
        """The lead's request."""
        with self.world.database.transaction() as tx:
            new = NewRequest(self.dataset.slug, role, "labelling", 7 * 86400, **holder)
            return requests.ask(self.world.parts, tx, self.lead.caller, new, clock(tx)).id

    def approve(self, request_id: str) -> None:
        """The owner agrees."""
        with self.world.database.transaction() as tx:
            approving.approve(self.world.parts, tx, self.owner.caller, request_id, Narrowing(), clock(tx))

    def give(self, person: str = "", team: str = "") -> None:
        """The owner gives by a file."""
        until = (self.world.now() + timedelta(days=30)).date().isoformat()
        text = (
            f"dataset,role,purpose,until,person,team\n{self.dataset.slug},annotator,labelling,{until},{person},{team}\n"
        )
        task = bulk_grants.task(self.world.parts, self.owner.caller)
        report = bulk_lines.run(
            self.world.database, read(text.encode(), bulk_grants.COLUMNS), task, dry_run=False, keep_going=False
        )
        assert [line.outcome for line in report.lines] == ["granted"]


def kinds(office: Office, signed: Signed) -> list[str]:
    return [item.kind for item in office.deliveries(signed)]


def last(office: Office, signed: Signed) -> Delivery:
    return office.deliveries(signed)[-1]


@pytest.mark.parametrize("holder", ["staff", "team", "service"])
def test_lead_requesting_for_others_is_not_named_as_holder(office: Office, holder: str) -> None:
    made = Vendors(office.world)
    name, whose = {
        "staff": ("Sam Staff", {"person_id": made.staff.id}),
        "team": (f"the team {made.team.name}", {"team_id": made.team.id}),
        "service": ("the service pipeline", {"service_id": made.service.id}),
    }[holder]
    _, bound = bind(office, topics=["to_decide", "own_requests", "own_grants"])
    role = "pipeline" if holder == "service" else "annotator"
    request_id = made.asked(role, **whose)
    office.rounds()
    to_owner = last(office, made.owner).body
    assert f"Lena Lead of {made.vendor.name} requests the role {role} on Trials for {name}." in to_owner
    made.approve(request_id)
    office.rounds()
    given = f"the role {role} on Trials was given to {name}."
    [to_lead] = office.deliveries(made.lead)
    assert (to_lead.kind, to_lead.title) == ("request.approved", "Your request was approved: Trials")
    assert to_lead.body == f"You sent the request, and {given}"
    holders = {"staff": [made.staff], "team": [made.member], "service": [made.other_lead]}[holder]
    for who in holders:
        [told] = office.deliveries(who)
        assert told.kind == "grant.made" and told.path.startswith("/grants/")
        given_to = "the service pipeline" if holder == "service" else "you"
        assert f"{role} on Trials was given to {given_to}" in told.body
        assert (f"as a member of {name}" in told.body) == (holder == "team")
    others = {made.staff.id, made.member.id, made.other_lead.id} - {who.id for who in holders}
    assert not [who for who in (made.staff, made.member, made.other_lead) if who.id in others and kinds(office, who)]
    in_channel = [item.body for item in sent(office, bound)]
    assert len(in_channel) == 2 and in_channel[1] == f"Lena Lead sent the request, and {given}"


def test_staff_get_a_notice_of_a_refused_request_by_their_lead(office: Office) -> None:
    world = office.world
    made = Vendors(world)
    request_id = made.asked(person_id=made.staff.id)
    with world.database.transaction() as tx:
        approving.refuse(tx, made.owner.caller, request_id, "not now", clock(tx))
    office.rounds()
    assert last(office, made.lead).body.startswith("Your request for the role annotator on Trials for Sam Staff was")
    assert last(office, made.staff).body == (
        "The request of Lena Lead for the role annotator on Trials for Sam Staff was refused."
    )


def test_imported_grants_notify_holders_and_their_leads(office: Office) -> None:
    world = office.world
    made = Vendors(world)
    _, bound = bind(office, topics=["own_grants"])
    made.give(person=made.staff.id)
    made.give(team=made.team.id)
    office.rounds()
    assert last(office, made.staff).title == last(office, made.member).title == "You were given access: Trials"
    told = office.deliveries(made.lead)
    assert [(item.kind, item.topic) for item in told] == [("grant.made", "staff")] * 2
    assert "was given to Sam Staff, until" in told[0].body and f"the team {made.team.name}, until" in told[1].body
    assert kinds(office, made.other_lead) == ["grant.made"] * 2 and not kinds(office, made.owner)
    assert [item.title for item in sent(office, bound)] == ["Access was given: Trials"] * 2


def test_confirmed_person_gets_a_notice_with_the_next_step(office: Office) -> None:
    world = office.world
    joined, admin = world.person(world.vendor(), status="pending"), world.person(roles=("admin",))
    to = office.address(joined)
    with world.database.transaction() as tx:
        people.confirm_person(tx, admin.caller, joined.id, clock(tx))
    office.rounds()
    [mail] = office.server.to(to)
    assert mail["Subject"] == "You are confirmed" and "You can now add your second factor" in mail.as_string()
