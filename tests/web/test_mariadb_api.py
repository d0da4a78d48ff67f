"""A slice of MariaDB from its making to the end of a guest's lease, through API and portal, with a worker running."""

from __future__ import annotations

import time

import pymysql
import pytest

from broker.models import Dataset
from broker.worker.worker import Worker
from tests.support.agreeing import agree_waiting
from tests.support.data import BERLIN
from tests.support.mariadb import WARD_DEIDENTIFIED, Mariadb, ask
from tests.support.world import World
from tests.web.conftest import BrowserOf, ClientOf


def test_mariadb_slice_and_lease_end_to_end(
    world: World, ward: Mariadb, worker: Worker, client_of: ClientOf, browser_of: BrowserOf
) -> None:
    vendor = world.vendor()
    dataset = world.dataset(vendor, register=False, slices={})
    path, new = f"/datasets/{dataset.slug}", {"name": "deidentified", "kind": "mariadb"}
    api = client_of(world.person(roles=("admin",)))
    wider = api.post(f"{path}/slices", json=new | {"binding": WARD_DEIDENTIFIED | {"schema": "mysql"}})
    assert (wider.status_code, wider.json()["errors"][0]["pointer"]) == (422, "/binding/schema")
    assert api.post(f"{path}/slices", json=new | {"binding": WARD_DEIDENTIFIED}).status_code in (201, 202)
    agree_waiting(world, dataset.slug)
    _await_ready(world, dataset)

    signed = world.person(vendor)
    grant = world.grant(dataset, signed)
    guest, browser = client_of(signed), browser_of(signed)
    page = browser.get(f"/grants/{grant.id}/credential").text
    assert "A user and password of MariaDB" in page
    made = guest.post("/leases", json={"dataset": dataset.slug, "slice": "deidentified", "lifetime": 300})
    assert made.status_code == 201, made.text
    lease, values = made.json()["lease"], made.json()["credential"]
    assert (lease["kind"], values["port"], values["ssl"]) == ("mariadb", str(ward.port), "verify")
    session = ward.guest(values)
    assert len(ask(session, f"SELECT * FROM {values['relation']}")) == BERLIN
    assert guest.post(f"/leases/{lease['id']}/renew", json={"lifetime": 400}).status_code == 200
    assert guest.post(f"/leases/{lease['id']}/revoke", json={"reason": "done"}).status_code == 202
    assert world.wait_for(lease["id"], "revoked").confirmed_by == "mariadb: no such user, no connection"
    with pytest.raises(pymysql.Error):
        ask(session, "SELECT 1")
    session.close()


def _await_ready(world: World, dataset: Dataset) -> None:
    end = time.monotonic() + 10
    while world.events(world.slice_id(dataset))[-1:] != ["slice.ready"]:
        assert time.monotonic() < end
        time.sleep(0.05)
