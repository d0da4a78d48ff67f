"""Promise 9: one admin alone opens nothing to themselves, also not through an accomplice or in several steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from broker.base.errors import Denied
from broker.base.ids import new_id
from broker.gate.facts import Ask, gather
from broker.leases.renewing import redecide_all
from broker.log import audit
from broker.models import Dataset, Delivery, Grant, Person, Service, Slice
from broker.notices.outbox import deliver_outbox
from tests.support.world import CLINIC, Signed, World
from tests.web.conftest import ClientOf, client_of, replica

__all__ = ["client_of", "replica"]
CONFIDENTIAL = ("classification:confidential",)


@dataclass
class Scene:
    """A dataset with an owner, a vendor's engineer who holds a grant on it, and two admins."""

    world: World
    client_of: ClientOf
    first: Signed
    second: Signed
    owner: Signed
    guest: Signed
    dataset: Dataset

    def api(self, who: Signed) -> httpx.Client:
        """A client of somebody's."""
        return self.client_of(who)

    def kept(self, record: type[Any], id_: str) -> Any:
        """A record as it is now."""
        with self.world.database.transaction() as tx:
            return tx.get_one(record, id_)

    def told(self, who: Signed, kind: str) -> list[str]:
        """The titles of what somebody was told of that kind."""
        # A round tells two hundred, and the tests before this one may have left more.
        while deliver_outbox(self.world.parts):
            continue
        query = select(Delivery.title).where(Delivery.person_id == who.id, Delivery.kind == kind)
        with self.world.database.transaction() as tx:
            return list(tx.scalars(query))

    def waits(self, answer: httpx.Response) -> str:
        """The proposal that an act became; its proposer cannot approve it."""
        assert answer.status_code == 202, answer.text
        proposal = str(answer.json()["id"])
        alone = self.api(self.first).post(f"/proposals/{proposal}/approve")
        assert (alone.status_code, alone.json()["code"]) == (403, "self_decision")
        return proposal

    def agree(self, who: Signed, proposal: str) -> httpx.Response:
        """Somebody's agreement."""
        return self.api(who).post(f"/proposals/{proposal}/approve")


@pytest.fixture
def scene(world: World, client_of: ClientOf) -> Scene:
    """One of its own."""
    vendor, owner = world.vendor(), world.person(name="Olga Owner")
    first, second = (world.person(roles=("admin",), name=name) for name in ("Ines Admin", "Petra Admin"))
    guest = world.person(vendor)
    dataset = world.dataset(vendor, owner=owner, labels=CONFIDENTIAL, register=False)
    world.grant(dataset, guest)
    return Scene(world, client_of, first, second, owner, guest, dataset)


def _patch(scene: Scene, who: Signed, body: Any) -> httpx.Response:
    return scene.api(who).patch(f"/datasets/{scene.dataset.slug}", json=body)


@pytest.mark.parametrize("agreeing", ["owner", "second"])
def test_owner_change_needs_the_owner_or_a_second_admin(scene: Scene, agreeing: str) -> None:
    new = scene.world.person()
    proposal = scene.waits(_patch(scene, scene.first, {"owner": new.id}))
    assert scene.kept(Dataset, scene.dataset.id).owner_id == scene.owner.id
    assert scene.told(scene.owner, "proposal.made"), "the owner hears of it before it happens"
    about_them = scene.agree(new, proposal)
    assert about_them.status_code in (403, 409)
    assert scene.agree(scene.owner if agreeing == "owner" else scene.second, proposal).status_code == 200
    assert scene.kept(Dataset, scene.dataset.id).owner_id == new.id
    if agreeing == "second":
        assert scene.told(scene.owner, "dataset.changed"), "whom it was taken from is told"


def test_admin_owning_a_dataset_cannot_change_its_owner_alone(scene: Scene) -> None:
    scene.world.change(Dataset, scene.dataset.id, owner_id=scene.first.id)
    scene.waits(_patch(scene, scene.first, {"owner": scene.world.person().id}))
    assert scene.kept(Dataset, scene.dataset.id).owner_id == scene.first.id


def test_unrelated_people_cannot_approve_dataset_changes(scene: Scene) -> None:
    proposal = scene.waits(_patch(scene, scene.first, {"labels": []}))
    for outsider in (scene.world.person(), scene.guest, scene.world.person(roles=("auditor",))):
        assert scene.agree(outsider, proposal).status_code == 403
    stranger = scene.world.person()
    scene.world.dataset(owner=stranger, register=False)
    assert scene.agree(stranger, proposal).status_code == 403, "the owner of another dataset"
    assert scene.api(stranger).get(f"/proposals/{proposal}").status_code == 404
    assert scene.api(stranger).get("/proposals").json()["items"] == []
    assert [item["id"] for item in scene.api(scene.owner).get("/proposals").json()["items"]] == [proposal]
    assert scene.api(scene.owner).get(f"/proposals/{proposal}").json()["may_approve"]


def test_label_change_needs_two_and_its_proposer_cannot_read(scene: Scene) -> None:
    world, dataset = scene.world, scene.world.dataset(owner=scene.owner, labels=CONFIDENTIAL)
    world.grant(dataset, scene.first, "trainer")
    scene.dataset = dataset
    proposal = scene.waits(_patch(scene, scene.first, {"labels": ["classification:internal"]}))
    with pytest.raises(Denied):
        world.issue(scene.first, dataset, slice="full", lifetime=60)
    assert scene.agree(scene.owner, proposal).status_code == 200
    assert scene.kept(Dataset, dataset.id).labels == ["classification:internal"]
    with pytest.raises(Denied) as denied:
        world.issue(scene.first, dataset, slice="full", lifetime=60)
    assert "labelled_by_you" in {reason.code for reason in denied.value.decision.reasons}
    # Agreed anew by two others, the labels are theirs; one's own word on them does not wash it off.
    scene.first, earlier = scene.second, scene.first
    again = scene.waits(_patch(scene, scene.second, {"labels": ["classification:internal", "kind:x"]}))
    assert scene.agree(earlier, again).status_code == 200
    assert set(scene.kept(Dataset, dataset.id).labelled_by) == {scene.second.id, earlier.id}
    last = scene.waits(_patch(scene, scene.second, {"labels": ["classification:internal"]}))
    assert scene.agree(scene.owner, last).status_code == 200
    assert scene.kept(Dataset, dataset.id).labelled_by == [scene.second.id]


def test_lease_ends_when_its_holder_changed_the_labels(scene: Scene) -> None:
    world = scene.world
    admin, dataset = _granted_admin(scene)
    handed = world.issue(admin, dataset)
    world.change(Dataset, dataset.id, labelled_by=[admin.id])
    assert redecide_all(world.ender) >= 1
    assert world.lease(handed.lease.id).end_cause == "disqualified"


def _granted_admin(scene: Scene) -> tuple[Signed, Dataset]:
    dataset = scene.world.dataset(owner=scene.owner)
    scene.world.grant(dataset, scene.first, "annotator")
    return scene.first, dataset


def test_longer_retention_needs_two_and_shorter_does_not(scene: Scene) -> None:
    api = scene.first
    assert _patch(scene, api, {"retention_until": "2031-01-01T00:00:00Z"}).status_code == 200
    assert _patch(scene, api, {"retention_until": "2030-01-01T00:00:00Z"}).status_code == 200
    for longer in ("2032-01-01T00:00:00Z", None):
        proposal = scene.waits(_patch(scene, api, {"retention_until": longer}))
        assert scene.agree(scene.second, proposal).status_code == 200
    assert scene.kept(Dataset, scene.dataset.id).retention_until is None


def _add(scene: Scene, who: Signed, slug: str, name: str = "everything", binding: Any = None) -> httpx.Response:
    body = {"name": name, "binding": binding or CLINIC | {"table": name, "columns": ["id"]}}
    return scene.api(who).post(f"/datasets/{slug}/slices", json=body)


def test_slice_of_a_dataset_with_grants_needs_two(scene: Scene) -> None:
    proposal = scene.waits(_add(scene, scene.first, scene.dataset.slug))
    assert _add(scene, scene.first, scene.dataset.slug).json()["code"] == "proposed_already"
    names = {item["name"] for item in scene.api(scene.owner).get(f"/datasets/{scene.dataset.slug}").json()["slices"]}
    assert names == {"deidentified", "full"}
    assert scene.agree(scene.owner, proposal).status_code == 200
    with scene.world.database.transaction() as tx:
        made = tx.scalars(select(Slice).where(Slice.dataset_id == scene.dataset.id, Slice.name == "everything")).one()
    assert made.bound_by == scene.first.id
    assert scene.world.events(made.id)[0] == "slice.added"


def test_slice_of_a_dataset_without_grants_notifies_the_owner(scene: Scene) -> None:
    quiet = scene.world.dataset(owner=scene.owner, register=False)
    table = f"t{new_id('x')[-8:]}"
    assert _add(scene, scene.first, quiet.slug, table).status_code == 201
    assert scene.told(scene.owner, "slice.added")


def test_pending_request_counts_like_a_grant(scene: Scene) -> None:
    world, quiet = scene.world, scene.world.dataset(owner=scene.owner)
    body = {"dataset": quiet.slug, "role": "annotator", "slice": "deidentified", "purpose": "x", "period": 3600}
    assert scene.api(scene.first).post("/requests", json=body).status_code == 201
    scene.waits(_add(scene, scene.first, quiet.slug, f"t{new_id('x')[-8:]}"))
    assert world.events(quiet.id) == []


@pytest.mark.parametrize("labels", [(), (*CONFIDENTIAL, "classification:internal")])
@pytest.mark.parametrize("retired", [False, True])
def test_same_table_in_another_dataset_needs_two(scene: Scene, retired: bool, labels: tuple[str, ...]) -> None:
    """A new dataset of one's own over another's table would be a way round its owner, also once that is retired."""
    table = {**CLINIC, "table": f"t{new_id('x')[-8:]}", "columns": ["id"]}
    guarded = scene.world.dataset(owner=scene.owner, labels=CONFIDENTIAL, register=False, slices={"all": table})
    if retired:
        retiring = scene.api(scene.first).post(f"/datasets/{guarded.slug}/retire", json={"reason": "x"})
        assert retiring.status_code == 202, retiring.text
    friend = scene.world.person()
    lax: dict[str, Any] = {
        "slug": f"lax-{new_id('x')[-8:]}",
        "title": "Test data",
        "labels": labels,
        "owner": friend.id,
    }
    assert scene.api(scene.first).post("/datasets", json=lax).status_code == 201
    proposal = scene.waits(_add(scene, scene.first, lax["slug"], "all", table | {"columns": ["id", "name"]}))
    assert scene.agree(friend, proposal).status_code == 403, "the new dataset's owner speaks not for the table"
    assert guarded.id in scene.api(scene.second).get(f"/proposals/{proposal}").json()["details"]["datasets"]
    assert scene.agree(scene.second, proposal).status_code == 200


def test_admin_who_bound_a_slice_cannot_decide_for_the_owner(scene: Scene) -> None:
    """Another admin added the dataset, so that binding it and letting an accomplice in were one's own alone."""
    world, guest = scene.world, scene.guest
    lax = {
        "slug": f"free-{new_id('x')[-8:]}",
        "title": "Test data",
        "labels": ["classification:internal"],
        "owner": None,
    }
    assert scene.api(scene.second).post("/datasets", json=lax).status_code == 201
    table = {**CLINIC, "table": f"t{new_id('x')[-8:]}", "columns": ["id"]}
    assert _add(scene, scene.first, str(lax["slug"]), "deidentified", table).status_code == 201
    with world.database.transaction() as tx:
        dataset = tx.scalars(select(Dataset).where(Dataset.slug == lax["slug"])).one()
    world.change(Slice, world.slice_id(dataset), state="ready")
    until = (world.now() + timedelta(hours=1)).isoformat()
    body = {"dataset": lax["slug"], "role": "annotator", "purpose": "x", "until": until, "person": guest.id}
    assert guest.caller.vendor_id is not None
    offered = scene.api(scene.second).post(f"/datasets/{lax['slug']}/offers", json={"vendor": guest.caller.vendor_id})
    assert offered.status_code in (200, 201), offered.text
    for alone in (scene.first, scene.second):
        given = scene.api(alone).post("/grants", json=body)
        assert (given.status_code, given.json()["code"]) == (409, "self_decision"), given.text
    third = scene.api(scene.world.person(roles=("admin",))).post("/grants", json=body)
    assert third.status_code == 201, third.text


def test_only_the_owner_can_set_a_slice_fast(scene: Scene) -> None:
    quiet = scene.world.dataset(owner=scene.owner, register=False, slices={})
    fast = {**CLINIC, "table": f"t{new_id('x')[-8:]}", "columns": ["id"], "fast": True}
    refused = scene.api(scene.first).post(f"/datasets/{quiet.slug}/slices", json={"name": "all", "binding": fast})
    assert refused.status_code == 403 and "hidden rows" in refused.text
    scene.world.change(Dataset, quiet.id, owner_id=scene.first.id)
    own = scene.api(scene.first).post(f"/datasets/{quiet.slug}/slices", json={"name": "all", "binding": fast})
    assert own.status_code in (201, 202), own.text


def test_admin_who_bound_a_slice_cannot_read_it(scene: Scene) -> None:
    admin, dataset = _granted_admin(scene)
    world = scene.world
    world.change(Slice, world.slice_id(dataset), bound_by=admin.id)
    with pytest.raises(Denied) as denied:
        world.issue(admin, dataset)
    reasons = {reason.code: reason for reason in denied.value.decision.reasons}
    assert reasons["bound_by_you"].advice
    service = world.service()
    world.change(Service, service.id, created_by=admin.id)
    world.grant(dataset, service, "annotator")
    why = scene.api(admin).post(
        "/requests",
        json={
            "dataset": dataset.slug,
            "role": "annotator",
            "slice": "deidentified",
            "purpose": "x",
            "period": 3600,
        },
    )
    assert why.status_code == 409, "asking for it is pointless, and says so"
    with pytest.raises(Denied) as denied:
        world.issue(service, dataset)
    assert "bound_by_you" in {reason.code for reason in denied.value.decision.reasons}, "whoever knows its secret"


def test_secret_of_a_service_with_access_needs_two(scene: Scene) -> None:
    world, service = scene.world, scene.world.service(scene.world.vendor())
    world.grant(scene.dataset, service)
    rotate = f"/services/{service.id}/rotate-secret"
    before = scene.kept(Service, service.id).secret_hash
    proposal = scene.waits(scene.api(scene.first).post(rotate))
    assert scene.kept(Service, service.id).secret_hash == before
    assert scene.agree(scene.owner, proposal).status_code == 200
    assert scene.kept(Service, service.id).secret_hash == before, "nobody but who asked is shown it"
    assert scene.api(scene.second).post(rotate).status_code == 202, "it was agreed to for the first alone"
    rotated = scene.api(scene.first).post(rotate)
    assert rotated.status_code == 200 and rotated.json()["client_secret"]
    assert scene.api(scene.first).post(rotate).status_code == 202, "once"
    assert scene.told(scene.owner, "service.secret_rotated")


def test_lead_can_rotate_the_secret_of_their_vendors_service(scene: Scene) -> None:
    world, vendor = scene.world, scene.world.vendor()
    lead, service = world.person(vendor, roles=("lead",)), world.service(vendor)
    world.grant(scene.dataset, service)
    assert scene.api(lead).post(f"/services/{service.id}/rotate-secret").status_code == 200


def test_person_who_saw_the_secret_cannot_approve_for_the_service(scene: Scene) -> None:
    world, service = scene.world, scene.world.service()
    dataset = world.dataset(owner=scene.first)
    assert scene.api(scene.first).post(f"/services/{service.id}/rotate-secret").status_code == 200
    body = {"dataset": dataset.slug, "role": "pipeline", "purpose": "x", "period": 3600, "service": service.id}
    asked = scene.api(scene.second).post("/requests", json=body)
    assert asked.status_code == 201, asked.text
    refused = scene.api(scene.first).post(f"/requests/{asked.json()['id']}/approve", json={})
    assert refused.json()["code"] == "self_decision"


def test_member_of_a_team_with_a_grant_needs_two(scene: Scene) -> None:
    world, vendor = scene.world, scene.world.vendor()
    team, joiner = world.team(vendor), world.person(vendor)
    world.grant(scene.dataset, team)
    path = f"/teams/{team.id}/members/{joiner.id}"
    proposal = scene.waits(scene.api(scene.first).put(path))
    assert scene.api(scene.second).get(f"/teams/{team.id}").json()["members"] == []
    assert scene.agree(scene.owner, proposal).status_code == 200
    assert [item["id"] for item in scene.api(scene.second).get(f"/teams/{team.id}").json()["members"]] == [joiner.id]
    other = world.person(vendor)
    lead = world.person(vendor, roles=("lead",))
    asked = scene.api(lead).put(f"/teams/{team.id}/members/{other.id}")
    assert asked.status_code == 202, "a lead proposes, and an admin or the owner agrees"
    assert scene.agree(scene.first, asked.json()["id"]).status_code == 200


def test_inviting_admin_cannot_confirm_the_person(scene: Scene) -> None:
    world = scene.world
    joined = world.person(status="pending")
    world.change(Person, joined.id, invited_by=scene.first.id)
    alone = scene.api(scene.first).post(f"/people/{joined.id}/confirm")
    assert (alone.status_code, alone.json()["code"]) == (409, "self_decision")
    assert scene.api(scene.second).post(f"/people/{joined.id}/confirm").status_code == 200


def test_suspend_and_resume_does_not_confirm_a_person(world: World, client_of: ClientOf) -> None:
    admin, joined = world.person(roles=("admin",)), world.person(status="pending")
    world.change(Person, joined.id, invited_by=admin.id)
    with world.database.transaction() as tx:
        audit.record(tx, "person.joined", actor=joined.caller.subject, subject=joined.id, now=world.now())
    api = client_of(admin)
    assert api.post(f"/people/{joined.id}/suspend", json={"reason": "x"}).status_code == 202
    assert api.post(f"/people/{joined.id}/resume", json={"reason": "x"}).json()["status"] == "pending"


def test_admin_who_suspended_the_owner_cannot_decide(scene: Scene) -> None:
    vendor = scene.world.vendor()
    dataset = scene.world.dataset(vendor, owner=scene.owner)
    guest = scene.world.person(vendor)
    body = {"dataset": dataset.slug, "role": "annotator", "slice": "deidentified", "purpose": "x", "period": 3600}
    request = scene.api(guest).post("/requests", json=body).json()["id"]
    first, second = scene.api(scene.first), scene.api(scene.second)
    assert first.post(f"/requests/{request}/approve", json={}).status_code == 403, "its owner decides"
    assert first.post(f"/people/{scene.owner.id}/suspend", json={"reason": "x"}).status_code == 202
    refused = first.post(f"/requests/{request}/approve", json={})
    assert refused.json()["code"] == "self_decision"
    assert second.post(f"/requests/{request}/approve", json={}).status_code == 201
    with scene.world.database.transaction() as tx:
        assert tx.scalars(select(Grant.approved_by).where(Grant.request_id == request)).one() == scene.second.id


def test_former_owner_or_admin_does_not_count_as_second_person(scene: Scene) -> None:
    new = scene.world.person()
    proposal = scene.waits(_patch(scene, scene.first, {"labels": []}))
    scene.world.change(Dataset, scene.dataset.id, owner_id=new.id)
    assert scene.agree(scene.owner, proposal).status_code == 403, "an owner no longer"
    scene.world.change(Person, scene.first.id, status="suspended")
    gone = scene.agree(scene.second, proposal)
    assert gone.status_code == 403 and "is no longer allowed to" in gone.text


def test_approval_facts_include_the_reasons(scene: Scene) -> None:
    """What the gate says rests on nothing that is not in its facts."""
    with scene.world.database.transaction() as tx:
        facts = gather(tx, scene.guest.caller, Ask(scene.dataset.slug)).facts
    assert facts.caller is not None and facts.caller.person == scene.guest.id
    assert facts.dataset is not None and facts.dataset.labelled_by == frozenset()
    assert {item.bound_by for item in facts.dataset.slices} == {None}


def test_dataset_records_who_chose_its_labels(scene: Scene) -> None:
    body = {"slug": f"own-{new_id('x')[-8:]}", "title": "Own", "labels": ["classification:internal"]}
    made = scene.api(scene.first).post("/datasets", json=body).json()
    assert scene.kept(Dataset, made["id"]).labelled_by == [scene.first.id]
