"""Nobody uses up what their neighbours' ends need: a bucket's policy has room for few refused sessions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.base.errors import Conflict
from broker.base.ids import new_lease_id
from broker.kinds.discovery import kinds
from broker.leases.issuing import Handed
from broker.leases.limits import MOST_REMEMBERED
from broker.models import Lease
from tests.support.world import PICTURES, World


def given_back(world: World, handed: Handed, times: int, age: timedelta = timedelta(0)) -> None:
    """As if the holder of this lease had asked for so many and ended each at once, so long ago."""
    kept = {name: getattr(handed.lease, name) for name in (column.name for column in Lease.__table__.columns)} | {
        "state": "revoked"
    }
    kept |= {name: kept[name] - age for name in ("created_at", "expires_at")}
    for _ in range(times):
        made = new_lease_id()
        world.add(Lease(**kept | {"id": made, "handle": f"{world.parts.tag}-{made}", "holder_hash": None}))


def test_leases_revoked_early_are_limited_so_that_others_can_issue(world: World) -> None:
    vendor = world.vendor()
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES})
    signed, neighbour = world.person(vendor), world.person(vendor)
    for one in (signed, neighbour):
        world.grant(dataset, one)
    handed = world.issue(signed, dataset, kind="s3")
    forgotten = timedelta(seconds=kinds["s3"].ending.remembered + 1)
    given_back(world, handed, MOST_REMEMBERED, forgotten)
    given_back(world, handed, MOST_REMEMBERED - 1)
    assert world.issue(signed, dataset, kind="s3").values
    given_back(world, handed, 1)
    with pytest.raises(Conflict, match="ended early") as refused:
        world.issue(signed, dataset, kind="s3")
    assert refused.value.code == "too_many_leases"
    assert world.issue(neighbour, dataset, kind="s3").values


def test_early_ended_leases_are_not_limited_where_the_backend_has_room(world: World) -> None:
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset)
    given_back(world, handed, MOST_REMEMBERED)
    assert world.issue(signed, dataset).values
