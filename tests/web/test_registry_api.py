"""The registry over HTTP: what each may see and change, with the events that say so."""

from __future__ import annotations

import pytest

from broker.models import Team
from tests.support.agreeing import agree_waiting
from tests.support.world import DEIDENTIFIED, World
from tests.web.conftest import ClientOf


@pytest.mark.fast
def test_vendor_is_added_activated_suspended_resumed_and_offboarded(world: World, client_of: ClientOf) -> None:
    admin = client_of(world.person(roles=("admin",)))
    made = admin.post("/vendors", json={"name": "Acme Annotation é"})
    assert made.status_code == 201, made.text
    vendor = made.json()["id"]
    assert admin.post("/vendors", json={"name": "ACME annotation é"}).status_code == 409
    for act, status, code in (
        ("activate", "active", 200),
        ("suspend", "suspended", 202),
        ("resume", "active", 200),
        ("offboard", "offboarded", 202),
    ):
        answer = admin.post(f"/vendors/{vendor}/{act}", json={"reason": "as agreed"})
        assert (answer.status_code, answer.json()["status"]) == (code, status), answer.text
    assert admin.post(f"/vendors/{vendor}/resume", json={"reason": "again"}).status_code == 409
    assert world.events(vendor) == [
        "vendor.added",
        "vendor.activated",
        "vendor.suspended",
        "vendor.resumed",
        "vendor.offboarded",
    ]


def test_suspending_a_vendor_ends_sessions_and_leases(world: World, client_of: ClientOf) -> None:
    guest, dataset, _ = world.guest()
    lease = world.issue(guest, dataset).lease
    admin, mine = client_of(world.person(roles=("admin",))), client_of(guest)
    answer = admin.post(f"/vendors/{guest.caller.vendor_id}/suspend", json={"reason": "incident"})
    assert answer.json()["leases"] == [lease.id]
    assert mine.get("/leases").status_code == 401
    world.sweep()
    assert world.lease(lease.id).state == "revoked"


def test_datasets_slices_and_offers_are_managed(world: World, client_of: ClientOf) -> None:
    admin, owner = world.person(roles=("admin",)), world.person()
    vendor = world.vendor()
    guest, stranger = client_of(world.person(vendor)), client_of(world.person(world.vendor()))
    api, owning = client_of(admin), client_of(owner)
    slug = f"set-{admin.id[-8:]}"
    body = {"slug": slug, "title": "A set", "labels": ["classification:internal"], "owner": owner.id}
    assert api.post("/datasets", json=body | {"owner": admin.id}).json()["code"] == "self_decision"
    made = api.post("/datasets", json=body)
    assert made.status_code == 201, made.text
    assert api.post("/datasets", json=body).status_code == 409
    slice_ = api.post(f"/datasets/{slug}/slices", json={"name": "deidentified", "binding": DEIDENTIFIED})
    assert slice_.status_code in (201, 202), slice_.text
    agree_waiting(world, slug)
    assert guest.get(f"/datasets/{slug}").status_code == 404
    assert owning.post(f"/datasets/{slug}/offers", json={"vendor": vendor.id}).status_code == 201
    seen = guest.get(f"/datasets/{slug}").json()
    assert seen["slices"][0]["binding"] is None and seen["owner"] is None
    assert [offer["vendor"] for offer in seen["offers"]] == [vendor.id]
    assert "annotator" in seen["roles"]
    assert owning.get(f"/datasets/{slug}").json()["slices"][0]["binding"]["table"] == "patients"
    assert stranger.get(f"/datasets/{slug}").status_code == 404
    assert [item["slug"] for item in guest.get("/datasets").json()["items"]] == [slug]
    assert owning.patch(f"/datasets/{slug}", json={"title": "Better"}).json()["title"] == "Better"
    assert stranger.patch(f"/datasets/{slug}", json={"labels": []}).status_code == 404
    assert guest.patch(f"/datasets/{slug}", json={"labels": []}).status_code == 403
    labelled = api.patch(f"/datasets/{slug}", json={"labels": ["classification:confidential"]})
    assert labelled.status_code == 202 and agree_waiting(world, slug) == 1
    assert api.get(f"/datasets/{slug}").json()["labels"] == ["classification:confidential"]
    assert owning.delete(f"/datasets/{slug}/offers/{vendor.id}").status_code == 200
    assert guest.get(f"/datasets/{slug}").status_code == 404
    assert owning.post(f"/datasets/{slug}/suspend", json={"reason": "pause"}).status_code == 202
    assert owning.post(f"/datasets/{slug}/resume", json={"reason": "on"}).json()["status"] == "active"
    assert owning.post(f"/datasets/{slug}/retire", json={"reason": "no"}).status_code == 403
    assert api.post(f"/datasets/{slug}/retire", json={"reason": "old"}).status_code == 202


def test_slices_without_a_rule_are_shown_to_owner_and_admins(world: World, client_of: ClientOf) -> None:
    vendor, owner = world.vendor(), world.person()
    slices = {"deidentified": DEIDENTIFIED, "labels": DEIDENTIFIED, "unruled": DEIDENTIFIED}
    dataset = world.dataset(vendor, owner=owner, slices=slices, register=False)
    for looks_after in (owner, world.person(roles=("admin",)), world.person(roles=("auditor",))):
        assert client_of(looks_after).get(f"/datasets/{dataset.slug}").json()["slices_without_rule"] == ["unruled"]
    assert client_of(world.person(vendor)).get(f"/datasets/{dataset.slug}").json()["slices_without_rule"] == []


def test_slice_with_an_action_without_a_rule_is_shown(world: World, client_of: ClientOf) -> None:
    admin = client_of(world.person(roles=("admin",)))
    dataset = world.dataset(
        slices={"deidentified": {"connection": "records"}}, kind="x509", actions=("write",), register=False
    )
    assert admin.get(f"/datasets/{dataset.slug}").json()["slices_without_rule"] == ["deidentified"]


def test_joining_a_team_cannot_bypass_approval(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    lead, one, two = world.person(vendor, roles=("lead",)), world.person(vendor), world.person(vendor)
    api, admin = client_of(lead), client_of(world.person(roles=("admin",)))
    team = api.post("/teams", json={"name": "Readers"}).json()["id"]
    assert api.put(f"/teams/{team}/members/{lead.id}").json()["code"] == "self_decision"
    assert api.put(f"/teams/{team}/members/{one.id}").status_code == 204
    assert api.put(f"/teams/{team}/members/{one.id}").status_code == 204
    other = world.person(world.vendor())
    assert api.put(f"/teams/{team}/members/{other.id}").status_code == 404
    assert admin.put(f"/teams/{team}/members/{other.id}").status_code == 422
    dataset = world.dataset(vendor, register=False)
    with world.database.transaction() as tx:
        held_by = tx.get_one(Team, team)
    world.grant(dataset, held_by)
    waiting = api.put(f"/teams/{team}/members/{two.id}")
    assert waiting.status_code == 202, "joining a team that holds a grant gives access"
    assert admin.post(f"/proposals/{waiting.json()['id']}/approve").status_code == 200
    assert {member["id"] for member in api.get(f"/teams/{team}").json()["members"]} == {one.id, two.id}
    assert client_of(one).get(f"/teams/{team}").status_code == 200
    assert client_of(other).get(f"/teams/{team}").status_code == 404
    assert api.delete(f"/teams/{team}/members/{two.id}").status_code == 200
    assert api.delete(f"/teams/{team}/members/{two.id}").status_code == 404
