"""Changing slices that are there: repaired after failing, confirmed after their table changed, made faster."""

from __future__ import annotations

import secrets

from broker.kinds.postgres.sessions import view_of
from broker.models import Slice
from broker.runtime.parts import vault_of
from broker.worker import slice_registration
from tests.support.registering import register_waiting
from tests.support.world import DEIDENTIFIED, World
from tests.web.conftest import ClientOf


def test_failed_slice_is_repaired_or_its_name_reused(world: World, client_of: ClientOf) -> None:
    api = client_of(world.person(roles=("admin",)))
    path, name = f"/datasets/{world.dataset(register=False, slices={}).slug}/slices", f"own_{secrets.token_hex(4)}"
    # A table of its own: over one that others' datasets show under other labels, repairing takes two people.
    right = DEIDENTIFIED | {"table": name, "columns": ["id"], "rows": []}
    wrong = right | {"table": f"not_{name}"}
    with world.admin() as session:
        session.execute(f"CREATE TABLE clinic.{name} (id int); GRANT SELECT ON clinic.{name} TO guestkey_registrar")
    assert api.post(path, json={"name": "part", "binding": wrong}).status_code == 201
    register_waiting(world)
    assert client_of(world.person()).put(f"{path}/part/binding", json={"binding": right}).status_code == 403
    refused = api.put(f"{path}/part/binding", json={"binding": right | {"columns": ["*"]}})
    assert refused.status_code == 422, refused.text
    # It can be taken away, and its name is free at once.
    assert api.post(f"{path}/part/retire", json={"reason": "no such table"}).status_code == 202
    assert api.post(path, json={"name": "part", "binding": wrong}).status_code == 201
    register_waiting(world)
    # Or it is given another binding.
    assert api.put(f"{path}/part/binding", json={"binding": right}).json()["state"] == "registering"
    register_waiting(world)
    shown = api.get(path.removesuffix("/slices")).json()["slices"]
    assert [(item["name"], item["state"]) for item in shown] == [("part", "ready")]
    assert api.put(f"{path}/part/binding", json={"binding": right}).status_code == 409


def test_name_of_a_used_slice_cannot_be_reused(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    world.issue(signed, dataset)
    api, path = client_of(world.person(roles=("admin",))), f"/datasets/{dataset.slug}/slices"
    assert api.post(f"{path}/deidentified/retire", json={"reason": "over"}).status_code == 202
    again = api.post(path, json={"name": "deidentified", "binding": DEIDENTIFIED})
    assert again.status_code == 409, again.text


def test_the_owner_confirms_a_changed_slice(world: World, client_of: ClientOf) -> None:
    owner, name = world.person(), f"moved_{secrets.token_hex(4)}"
    with world.admin() as session:
        session.execute(f"CREATE TABLE clinic.{name} (id int); GRANT SELECT ON clinic.{name} TO guestkey_registrar")
        dataset = world.dataset(
            owner=owner, slices={"all": DEIDENTIFIED | {"table": name, "columns": ["id"], "rows": []}}
        )
        session.execute(f"ALTER TABLE clinic.{name} RENAME TO {name}_old; CREATE TABLE clinic.{name} (id int)")
        session.execute(f"GRANT SELECT ON clinic.{name} TO guestkey_registrar")
    setup, path = vault_of(world.settings, "setup"), f"/datasets/{dataset.slug}/slices/all/confirm"
    assert client_of(owner).post(path).status_code == 409
    slice_registration.recheck_slices(world.ender, setup)
    (shown,) = client_of(owner).get(f"/datasets/{dataset.slug}").json()["slices"]
    assert shown["state"] == "changed" and "a different table" in shown["state_detail"]
    admin, other = client_of(world.person(roles=("admin",))), client_of(world.person())
    assert (admin.post(path).status_code, other.post(path).status_code) == (403, 403)
    assert client_of(owner).post(path).json()["state"] == "registering"
    register_waiting(world)
    assert world.events(world.slice_id(dataset, "all"))[-3:] == ["slice.changed", "slice.confirmed", "slice.ready"]


def test_owner_sets_a_slice_fast_and_back(world: World, client_of: ClientOf) -> None:
    owner = world.person()
    dataset = world.dataset(owner=owner)
    _setup, path = vault_of(world.settings, "setup"), f"/datasets/{dataset.slug}/slices/deidentified/fast"
    view = view_of(world.slice_id(dataset))
    assert client_of(world.person(roles=("admin",))).put(path, json={"fast": True}).status_code == 403
    for fast in (True, False):
        shown = client_of(owner).put(path, json={"fast": fast}).json()
        assert (shown["state"], shown["binding"].get("fast", False)) == ("registering", fast)
        register_waiting(world)
        with world.admin() as session:
            (plan,) = zip(*session.execute(f"EXPLAIN SELECT * FROM {view}").fetchall(), strict=True)
        assert ("Function Scan" in "".join(plan)) is not fast
        assert client_of(owner).put(path, json={"fast": fast}).status_code == 409


def test_failed_slice_with_pending_requests_needs_two_people(world: World, client_of: ClientOf) -> None:
    """Else one admin could bind it to any table behind the owner's back."""
    signed, dataset, _ = world.guest()
    world.change(Slice, world.slice_id(dataset), state="failed")
    api = client_of(world.person(roles=("admin",)))
    refused = api.put(f"/datasets/{dataset.slug}/slices/deidentified/binding", json={"binding": DEIDENTIFIED})
    assert refused.status_code == 409 and "second admin" in refused.json()["detail"], refused.text
    assert signed.caller.vendor_id
