"""Joining links that went astray are ended by whoever may make them, and by nobody else."""

from __future__ import annotations

import httpx
import pytest

from broker.base.errors import Conflict
from broker.identity import invitations
from broker.models import Invitation, Person
from tests.support.world import World
from tests.web.conftest import ClientOf


def test_unused_link_can_be_ended(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    source = world.source(vendor)
    lead = world.person(vendor, roles=("lead",))
    api = client_of(lead)
    one, two = (api.post("/invitations", json={"source": source.id, "label": who}).json() for who in ("Bo", "Cy"))
    assert httpx.get(one["link"]).status_code == 200
    unused = api.get("/invitations", params={"state": "unused"}).json()["items"]
    assert [item["id"] for item in unused] == [two["id"], one["id"]]
    other = client_of(world.person(world.vendor(), roles=("lead",)))
    for answer in (other.post(f"/invitations/{one['id']}/end"), api.post("/invitations/nonesuch/end")):
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such invitation here.")
    for nobody in (world.person(vendor), world.person(), world.person(roles=("auditor",))):
        assert client_of(nobody).post(f"/invitations/{one['id']}/end").status_code == 403
    assert client_of(None).post(f"/invitations/{one['id']}/end").status_code == 401
    assert httpx.get(one["link"]).status_code == 200, "still"
    ended = api.post(f"/invitations/{one['id']}/end")
    assert ended.status_code == 200 and ended.json()["label"] == "Bo", ended.text
    assert httpx.get(one["link"]).status_code == 404
    assert world.events(one["id"]) == ["invitation.made", "invitation.ended"]
    assert [item["id"] for item in api.get("/invitations", params={"state": "unused"}).json()["items"]] == [two["id"]]
    again = api.post(f"/invitations/{one['id']}/end")
    assert again.status_code == 409 and again.json()["advice"]
    admin = client_of(world.person(roles=("admin",)))
    assert admin.post(f"/invitations/{two['id']}/end").status_code == 200
    assert httpx.get(two["link"]).status_code == 404


def test_link_ended_during_sign_in_is_refused(world: World, client_of: ClientOf) -> None:
    """A sign-in reads its clock and may then wait: what counts is the moment at which the link is used up."""
    vendor = world.vendor()
    api, joiner = client_of(world.person(vendor, roles=("lead",))), world.person(vendor)
    made = api.post("/invitations", json={"source": world.source(vendor).id, "label": "Bo"}).json()
    began = world.now()
    assert api.post(f"/invitations/{made['id']}/end").status_code == 200
    with pytest.raises(Conflict), world.database.transaction() as tx:
        invitation, person = tx.get_one(Invitation, made["id"]), tx.get_one(Person, joiner.id)
        invitations.redeem_join(tx, invitation, person, began)
    assert world.events(made["id"]) == ["invitation.made", "invitation.ended"]
