"""Live leases decided again: each rests on its own grant, its own factor and its own address."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from broker.leases import renewing
from broker.models import Event, Grant, Lease
from tests.support.records import guest_on_record, service_on_record
from tests.support.world import World


def disqualified(world: World, lease_id: str) -> list[str]:
    """Decide every lease again; why this one ends, if it does."""
    renewing.redecide_all(world.ender)
    if world.lease(lease_id).state == "active":
        return []
    assert world.lease(lease_id).end_cause == "disqualified"
    with world.database.transaction() as tx:
        event = select(Event.leaf).where(Event.subject == lease_id, Event.kind == "lease.disqualified")
        return list(json.loads(tx.execute(event).scalar_one())["details"]["reasons"])


def test_lease_ends_with_its_own_grant_though_another_would_allow_it(world: World) -> None:
    signed, dataset, grant = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    world.grant(dataset, signed)
    assert lease.grant_id == grant.id and disqualified(world, lease.id) == []
    world.change(Grant, grant.id, ends_at=world.now())
    assert disqualified(world, lease.id) == ["grant_ended"]


def test_lease_ends_no_later_than_its_grant_now_does(world: World) -> None:
    signed, dataset, grant = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    soon = world.now() + timedelta(seconds=60)
    world.change(Grant, grant.id, ends_at=soon)
    assert disqualified(world, lease.id) == []
    assert (world.lease(lease.id).expires_at, world.events(lease.id)[-1]) == (soon, "lease.shortened")
    world.change(Grant, grant.id, ends_at=soon + timedelta(days=1))
    assert disqualified(world, lease.id) == []
    assert world.lease(lease.id).expires_at == soon, "deciding again lengthens nothing"


def test_lease_lives_no_longer_than_the_longest_lifetime_now_is(world: World) -> None:
    signed, dataset, grant = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    world.change(Grant, grant.id, max_lifetime=100)
    assert disqualified(world, lease.id) == []
    assert world.lease(lease.id).expires_at == lease.created_at + timedelta(seconds=100)


@pytest.mark.parametrize(("age", "reasons"), [(899, []), (901, ["factor_stale"])])
def test_factor_counts_as_old_as_it_was_when_the_lease_was_issued(world: World, age: int, reasons: list[str]) -> None:
    signed, dataset, _ = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    assert lease.factor_at == signed.caller.factor_at
    begun = lease.created_at - timedelta(hours=1)
    world.change(
        Lease,
        lease.id,
        created_at=begun,
        factor_at=begun - timedelta(seconds=age),
        expires_at=begun + timedelta(seconds=3600) + timedelta(minutes=1),
    )
    assert disqualified(world, lease.id) == reasons


def test_lease_counts_as_used_from_where_it_was_issued(world: World) -> None:
    signed, dataset, _ = service_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    assert disqualified(world, lease.id) == []
    world.change(Lease, lease.id, address="203.0.113.7")
    assert disqualified(world, lease.id) == ["outside_network"]


def test_every_batch_of_leases_is_decided_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    signed, dataset, grant = guest_on_record(world)
    leases = [world.issue(signed, dataset, kind="token").lease.id for _ in range(3)]
    world.change(Grant, grant.id, revoked_at=world.now())
    monkeypatch.setattr(renewing, "BATCH", 1)
    assert renewing.redecide_all(world.ender) >= 3
    assert {world.lease(lease_id).state for lease_id in leases} == {"revoking"}
