"""Certificates with `guestkey`: the key is made here for each lease, and the real gateway lets its holder in."""

from __future__ import annotations

import pytest

from guestkey import Client
from tests.credentials.conftest import asked, gate
from tests.support.gateway import NAME, Gateway, guest
from tests.support.world import World
from tests.web.conftest import Replica

__all__ = ["asked", "gate"]
pytestmark = pytest.mark.usefixtures("worker")


def test_lease_creates_a_key_or_certifies_yours(world: World, replica: Replica, gate: Gateway) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="x509", slices={"deidentified": {"connection": NAME}})
    world.grant(dataset, signed)
    with Client(replica.url, token=signed.token) as client:
        with client.lease(dataset.slug) as lease:
            assert gate.get(lease.values["certificate"], lease.values["private_key"].encode())[0] == 200
            assert "PRIVATE KEY" not in repr(lease)
        world.wait_for(lease.id, "revoked")
        assert gate.refresh().returncode == 0
        assert gate.get(lease.values["certificate"], lease.values["private_key"].encode())[0] != 200
        own = guest()
        with client.lease(dataset.slug, kind="x509", public_key=own.request) as mine:
            assert "private_key" not in mine.values
            assert gate.get(mine.values["certificate"], own.key_pem)[0] == 200
