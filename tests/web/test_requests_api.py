"""Asking and deciding over HTTP: who may, what an approval may take away, and that nobody decides about themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from broker.base.paging import Window
from broker.models import Dataset, Notice, Person, Request, Vendor
from broker.registry import teams
from broker.requests.requests import REQUESTS
from tests.support.agreeing import agree_waiting
from tests.support.world import DEIDENTIFIED, Signed, World
from tests.web.conftest import ClientOf


@dataclass
class Scene:
    """A vendor's engineer and lead, and an owned dataset offered to them."""

    vendor: Vendor
    guest: Signed
    lead: Signed
    owner: Signed
    admin: Signed
    dataset: Dataset
    api: Callable[[Signed], httpx.Client]

    def ask(self, who: Signed | None = None, **changes: Any) -> httpx.Response:
        """Ask for the annotator's role."""
        body = {
            "dataset": self.dataset.slug,
            "role": "annotator",
            "slice": "deidentified",
            "purpose": "Label the March visits",
            "period": 7 * 86400,
        }
        body |= changes
        # Written as ASCII, so that a lone surrogate can be sent at all.
        sent = json.dumps({key: value for key, value in body.items() if value is not None})
        return self.api(who or self.guest).post("/requests", content=sent, headers={"Content-Type": "application/json"})


@pytest.fixture
def scene(world: World, client_of: ClientOf) -> Scene:
    """The scene most tests play in."""
    vendor, owner = world.vendor(), world.person(name="Olga Owner")
    return Scene(
        vendor=vendor,
        guest=world.person(vendor),
        lead=world.person(vendor, roles=("lead",)),
        owner=owner,
        admin=world.person(roles=("admin",)),
        dataset=world.dataset(vendor, owner=owner),
        api=client_of,
    )


@pytest.mark.fast
def test_request_approval_and_credential(world: World, scene: Scene) -> None:
    made = scene.ask()
    assert made.status_code == 201, made.text
    request, guest, owner = made.json(), scene.api(scene.guest), scene.api(scene.owner)
    assert scene.ask().status_code == 409
    assert [item["id"] for item in owner.get("/requests?view=queue").json()["items"]] == [request["id"]]
    for_admins = scene.api(scene.admin).get("/requests?view=queue").json()["items"]
    assert request["id"] not in [item["id"] for item in for_admins], "an admin decides only where there is no owner"
    seen = owner.get(f"/requests/{request['id']}").json()
    facts = seen["facts"]
    assert facts["may_decide"] and facts["vendor"] == scene.vendor.id and not facts["lasting"]
    assert facts["slices"][0]["binding"]["columns"] == ["id", "site", "age"]
    assert facts["unmet_now"][0]["code"] == "factor_not_enrolled"
    assert facts["rules"] and facts["endings"]["postgres"]["worst_case"]
    assert facts["endings"]["token"]["worst_case"] is None, "a token could be had, too"
    assert guest.get(f"/requests/{request['id']}").json()["facts"] is None
    narrowed = {"period": 3600, "max_lifetime": 120, "digest": facts["digest"]}
    grant = owner.post(f"/requests/{request['id']}/approve", json=narrowed)
    assert grant.status_code == 201, grant.text
    assert owner.post(f"/requests/{request['id']}/approve", json={}).status_code == 409
    shown = guest.get(f"/requests/{request['id']}").json()
    assert (shown["state"], shown["grant"], shown["decided_by"]) == ("approved", grant.json()["id"], None)
    lease = guest.post("/leases", json={"dataset": scene.dataset.slug, "slice": "deidentified", "lifetime": 100})
    assert lease.status_code == 201, lease.text
    assert lease.headers["cache-control"] == "no-store"
    assert lease.json()["secret_available"] and lease.json()["credential"]["password"]
    assert world.events(request["id"]) == ["request.made", "request.approved"]
    assert world.events(grant.json()["id"]) == ["grant.made"]
    revoked = guest.post(f"/grants/{grant.json()['id']}/revoke", json={"reason": "done"})
    assert revoked.json()["leases"] == [lease.json()["lease"]["id"]]
    world.sweep()
    assert guest.get(f"/leases/{lease.json()['lease']['id']}").json()["state"] == "revoked"


@pytest.mark.parametrize(
    "wider", [{"period": 30 * 86400}, {"slice": "full"}, {"max_lifetime": 30}, {"period": 1}, {"role": "steward"}]
)
def test_approval_can_only_narrow(scene: Scene, wider: dict[str, Any]) -> None:
    request = scene.ask().json()["id"]
    assert scene.api(scene.owner).post(f"/requests/{request}/approve", json=wider).status_code == 422


def test_an_open_request_can_be_narrowed_to_a_slice(scene: Scene) -> None:
    request = scene.ask(slice=None, role="trainer").json()["id"]
    owner = scene.api(scene.owner)
    assert owner.post(f"/requests/{request}/approve", json={"slice": "nonesuch"}).status_code == 409
    grant = owner.post(f"/requests/{request}/approve", json={"slice": "deidentified"}).json()
    assert grant["slice"] == "deidentified"


def test_approver_sees_only_what_the_rules_allow(scene: Scene) -> None:
    request = scene.ask(slice=None).json()["id"]
    facts = scene.api(scene.owner).get(f"/requests/{request}").json()["facts"]
    assert [item["name"] for item in facts["slices"]] == ["deidentified"], "no rule opens the other to annotators"


def test_own_request_cannot_be_decided(world: World, scene: Scene) -> None:
    own = scene.api(scene.owner)
    mine = scene.ask(scene.owner, role="steward")
    refused = own.post(f"/requests/{mine.json()['id']}/approve", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "self_decision")
    # The admin is not asked where there is an owner.
    assert scene.api(scene.admin).post(f"/requests/{mine.json()['id']}/approve", json={}).status_code == 403
    assert own.post(f"/requests/{mine.json()['id']}/withdraw").json()["state"] == "withdrawn"


def test_requester_can_remind_once_a_day(world: World, scene: Scene) -> None:
    request = scene.ask().json()["id"]
    mine = scene.api(scene.guest)
    early = mine.post(f"/requests/{request}/remind")
    assert (early.status_code, "less than a day ago" in early.json()["detail"]) == (409, True)
    world.change(Request, request, created_at=world.now() - timedelta(days=2))
    assert scene.api(scene.owner).post(f"/requests/{request}/remind").status_code == 403
    assert mine.post(f"/requests/{request}/remind").status_code == 200
    assert mine.post(f"/requests/{request}/remind").status_code == 409
    with world.database.transaction() as tx:
        told = tx.scalars(select(Notice.kind).where(Notice.subject == request).order_by(Notice.id)).all()
    assert list(told) == ["request.made", "request.reminded"]
    assert mine.post(f"/requests/{request}/withdraw").status_code == 200
    world.change(Request, request, reminded_at=None)
    over = mine.post(f"/requests/{request}/remind")
    assert (over.status_code, "no longer waiting" in over.json()["detail"]) == (409, True)


def test_vendor_people_cannot_decide_requests(scene: Scene) -> None:
    request = scene.ask().json()["id"]
    lead = scene.api(scene.lead)
    assert lead.get(f"/requests/{request}").status_code == 200
    assert lead.post(f"/requests/{request}/approve", json={}).status_code == 403
    assert lead.post(f"/requests/{request}/withdraw").json()["state"] == "withdrawn"


def test_stewards_decide_but_cannot_name_stewards(world: World, scene: Scene) -> None:
    steward = world.person(name="Stefan Steward")
    world.grant(scene.dataset, steward, "steward")
    api = scene.api(steward)
    request = scene.ask().json()["id"]
    assert api.post(f"/requests/{request}/approve", json={}).status_code == 201
    candidate = scene.ask(world.person(), role="steward").json()["id"]
    assert api.post(f"/requests/{candidate}/approve", json={}).status_code == 403
    assert scene.api(scene.owner).post(f"/requests/{candidate}/approve", json={}).status_code == 201
    # The same role held by a vendor's person gives no say.
    guest = world.person(scene.vendor)
    world.grant(scene.dataset, guest, "steward")
    other = scene.ask(world.person(scene.vendor)).json()["id"]
    assert scene.api(guest).post(f"/requests/{other}/approve", json={}).status_code == 404


def test_admin_decides_only_without_owner_and_steward(world: World, scene: Scene) -> None:
    maker, other = scene.api(scene.admin), scene.api(world.person(roles=("admin",)))
    slug = f"lone-{scene.admin.id[-10:]}"
    assert maker.post(
        "/datasets", json={"slug": slug, "title": "Lone", "labels": ["classification:internal"]}
    ).is_success
    assert maker.post(f"/datasets/{slug}/offers", json={"vendor": scene.vendor.id}).is_success
    body = {"name": "deidentified", "binding": DEIDENTIFIED}
    assert maker.post(f"/datasets/{slug}/slices", json=body).is_success
    agree_waiting(world, slug)
    request = scene.ask(dataset=slug).json()["id"]
    assert maker.post(f"/requests/{request}/approve", json={}).json()["code"] == "self_decision"
    assert [item["id"] for item in other.get("/requests?view=queue").json()["items"]][:1] == [request]
    assert other.post(f"/requests/{request}/approve", json={}).status_code == 201


def test_a_refusal_needs_a_reason_and_shows_it(scene: Scene) -> None:
    request = scene.ask().json()["id"]
    owner = scene.api(scene.owner)
    assert owner.post(f"/requests/{request}/refuse", json={"reason": " "}).status_code == 422
    assert owner.post(f"/requests/{request}/refuse", json={"reason": "Ask for less"}).status_code == 200
    assert scene.api(scene.guest).get(f"/requests/{request}").json()["decision_reason"] == "Ask for less"
    assert scene.ask().status_code == 201


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"role": "nonesuch"}, 409),
        ({"role": "annotator", "slice": "full"}, 409),
        ({"dataset": "nonesuch"}, 404),
        ({"period": 10}, 422),
        ({"period": 400 * 86400}, 422),
        ({"purpose": "hidden \u202e text"}, 422),
        ({"purpose": "nul \x00"}, 422),
        ({"purpose": "\ud800"}, 422),
        ({"role": "annotator\n"}, 422),
        ({"role": "role:admin"}, 422),
        ({"slice": "de*"}, 422),
        ({"team": "te_00000000000000000000000000"}, 404),
        ({"service": "sv_00000000000000000000000000"}, 404),
    ],
)
def test_impossible_or_widening_requests_are_refused(scene: Scene, changes: dict[str, Any], status: int) -> None:
    answer = scene.ask(**changes)
    assert answer.status_code == status, answer.text
    assert answer.json()["advice"]


def test_changed_facts_must_be_reviewed_again(world: World, scene: Scene) -> None:
    request = scene.ask().json()["id"]
    owner = scene.api(scene.owner)
    digest = owner.get(f"/requests/{request}").json()["facts"]["digest"]
    world.change(Dataset, scene.dataset.id, labels=["classification:internal", "regulation:gdpr"])
    stale = owner.post(f"/requests/{request}/approve", json={"digest": digest})
    assert (stale.status_code, stale.json()["code"]) == (409, "facts_changed")
    fresh = owner.get(f"/requests/{request}").json()["facts"]["digest"]
    assert owner.post(f"/requests/{request}/approve", json={"digest": fresh}).status_code == 201


def test_gate_is_checked_at_approval(world: World, scene: Scene) -> None:
    request = scene.ask().json()["id"]
    world.change(Person, scene.guest.id, status="suspended")
    refused = scene.api(scene.owner).post(f"/requests/{request}/approve", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "grant_pointless")


def test_a_lapsed_request_cannot_be_approved(world: World, scene: Scene) -> None:
    request = scene.ask().json()["id"]
    world.change(Request, request, lapses_at=world.now())
    assert scene.api(scene.owner).post(f"/requests/{request}/approve", json={}).status_code == 409


def test_only_leads_request_for_teams_and_services(world: World, scene: Scene) -> None:
    team, service = world.team(scene.vendor, scene.guest), world.service(scene.vendor)
    assert scene.ask(team=team.id).status_code == 403
    assert scene.ask(scene.lead, team=team.id, service=service.id).status_code == 422
    asked = scene.ask(scene.lead, team=team.id).json()
    assert scene.api(scene.owner).get(f"/requests/{asked['id']}").json()["facts"]["holder"]["members"] == 1
    grant = scene.api(scene.owner).post(f"/requests/{asked['id']}/approve", json={}).json()
    assert grant["holder"] == f"team:{team.id}"
    assert scene.api(scene.guest).get(f"/grants/{grant['id']}").status_code == 200
    pipeline = scene.ask(scene.lead, service=service.id, role="pipeline")
    assert pipeline.status_code == 201, pipeline.text
    assert scene.ask(scene.lead, service=world.service(world.vendor()).id, role="pipeline").status_code == 404


def test_queue_pages_start_with_the_oldest(world: World, scene: Scene) -> None:
    asked = [scene.ask(world.person(scene.vendor)).json()["id"] for _ in range(3)]

    def queue(cursor: str | None) -> tuple[list[str], str | None]:
        window = Window(cursor, limit=2, oldest_first=True)
        with world.database.transaction() as tx:
            found = REQUESTS.page(tx, scene.owner.caller, window, view="queue")
            return [item.id for item in found.items], found.next_cursor

    first, onward = queue(None)
    assert first == asked[:2] and onward is not None
    assert queue(onward) == (asked[2:], None)


def test_approval_needs_the_team_members_seen(world: World, scene: Scene) -> None:
    """Its lead may change it freely until the grant is made."""
    team, late, owner = world.team(scene.vendor, scene.guest), world.person(scene.vendor), scene.api(scene.owner)
    request = scene.ask(scene.lead, team=team.id).json()["id"]
    facts = owner.get(f"/requests/{request}").json()["facts"]
    assert facts["holder"]["people"] == ["Ada Guest"]
    with world.database.transaction() as tx:
        teams.add_member(tx, scene.lead.caller, team.id, late.id, world.now())
    stale = owner.post(f"/requests/{request}/approve", json={"digest": facts["digest"]})
    assert (stale.status_code, stale.json()["code"]) == (409, "facts_changed")
