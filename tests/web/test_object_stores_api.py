"""Slices of an object store over the API: registered, refused with the field named, handed over once."""

from __future__ import annotations

import time

import pytest

from broker.worker.worker import Worker
from tests.support.agreeing import agree_waiting
from tests.support.objects import readable
from tests.support.world import PICTURES, World
from tests.web.conftest import ClientOf


def test_s3_slice_is_registered_and_a_session_issued(client_of: ClientOf, world: World, worker: Worker) -> None:
    admin, vendor = world.person(roles=("admin",)), world.vendor()
    dataset, ada = world.dataset(vendor, register=False, slices={}), world.person(vendor)
    body = {"name": "deidentified", "kind": "s3", "actions": ["read"], "binding": PICTURES}
    path = f"/datasets/{dataset.slug}/slices"
    made = client_of(admin).post(path, json=body)
    assert made.status_code in (201, 202), made.text
    agree_waiting(world, dataset.slug)
    world.grant(dataset, ada)
    assert client_of(admin).get(f"/datasets/{dataset.slug}").json()["slices"][0]["binding"] == PICTURES
    end = time.monotonic() + 15
    while True:
        shown = client_of(admin).get(f"/datasets/{dataset.slug}").json()["slices"]
        if [item["state"] for item in shown] == ["ready"]:
            break
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    asked = {"dataset": dataset.slug, "slice": "deidentified", "kind": "s3", "lifetime": 300}
    handed = client_of(ada).post("/leases", json=asked)
    assert handed.status_code == 201, handed.text
    assert handed.headers["cache-control"] == "no-store"
    assert readable(handed.json()["credential"])
    lease_id = handed.json()["lease"]["id"]
    ended = client_of(ada).post(f"/leases/{lease_id}/revoke", json={})
    assert ended.status_code == 202, ended.text
    world.wait_for(lease_id, "revoked")
    assert not readable(handed.json()["credential"])


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"binding": {**PICTURES, "prefix": "*"}}, "/binding/prefix"),
        ({"binding": {**PICTURES, "prefix": "trials/../"}}, "/binding/prefix"),
        ({"binding": {**PICTURES, "bucket": "*"}}, "/binding/bucket"),
        ({"binding": {"connection": "objects"}}, "/binding/bucket"),
        ({"binding": {**PICTURES, "connection": ""}}, "/binding/connection"),
        ({"binding": {**PICTURES, "key": "x"}}, "/binding"),
        ({"actions": ["write", "delete"]}, "/actions/1"),
        ({"kind": "s4"}, "/kind"),
    ],
)
def test_each_invalid_field_is_named(
    client_of: ClientOf, world: World, changed: dict[str, object], pointer: str
) -> None:
    admin, dataset = world.person(roles=("admin",)), world.dataset(register=False, slices={})
    body = {"name": "deidentified", "kind": "s3", "actions": ["read"], "binding": PICTURES} | changed
    refused = client_of(admin).post(f"/datasets/{dataset.slug}/slices", json=body)
    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer], refused.text
    assert refused.json()["errors"][0]["detail"]
