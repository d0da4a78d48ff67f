"""Renewing a lease on the real parts: what still qualifies lives longer, everything else ends when it would have."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import select

from broker.base.database import clock
from broker.base.errors import BackendDown, Conflict, Denied, FactorNeeded, Forbidden, Invalid, NotFound
from broker.identity.caller import Caller
from broker.leases import renewing
from broker.leases.renewing import renew
from broker.models import Dataset, Event, Grant, Lease, Person, Slice, Vendor
from broker.revocation.ending import revoke_grant
from broker.runtime import rulebook
from tests.support.world import World


def valid_until(world: World, handle: str) -> Any:
    """When PostgreSQL itself stops letting the user in."""
    with world.admin() as connection:
        row = connection.execute(
            "SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", ("gk_" + handle.replace("-", "_"),)
        ).fetchone()
    assert row is not None
    return row[0]


def lengthened(world: World, lease: Lease) -> None:
    """Wait until the minute a credential is made for has been lengthened to its life."""
    end = time.monotonic() + 10
    while valid_until(world, lease.handle) < lease.expires_at:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_renewed_credential_outlives_its_first_expiry(world: World) -> None:
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset, lifetime=3)
    lengthened(world, handed.lease)
    renewed = renew(world.parts, signed.caller, handed.lease.id, 60)
    assert renewed.expires_at > handed.lease.expires_at + timedelta(seconds=50)
    assert valid_until(world, handed.lease.handle) >= renewed.expires_at
    time.sleep(max(0.0, (handed.lease.expires_at - world.now()).total_seconds()) + 0.5)
    world.sweep()
    assert world.lease(handed.lease.id).state == "active"
    with world.connect(handed) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert world.events(handed.lease.id) == ["lease.issued", "lease.renewed"]
    world.change(Lease, handed.lease.id, expires_at=world.now())
    world.wait_sweeping(handed.lease.id, "expired")
    with pytest.raises(psycopg.OperationalError):
        world.connect(handed)


def test_denied_renewal_leaves_the_expiry_unchanged(world: World) -> None:
    signed, dataset, grant = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(type(grant), grant.id, ends_at=world.now())
    with pytest.raises(Denied) as denied:
        renew(world.parts, signed.caller, lease.id)
    assert [reason.code for reason in denied.value.decision.reasons] == ["grant_ended"]
    now = world.lease(lease.id)
    assert (now.state, now.expires_at) == ("active", lease.expires_at)
    assert world.events(lease.id) == ["lease.issued", "lease.not_renewed"]
    world.change(Lease, lease.id, expires_at=world.now())
    world.wait_sweeping(lease.id, "expired")


def stale(world: World, held: Held) -> None:
    """The second factor was proven too long ago for the rule."""
    held.caller = replace(held.caller, factor_at=world.now() - timedelta(hours=2))


def other_rules(world: World, held: Held) -> None:
    """Annotators may read nothing of internal datasets any more."""
    _, rules, _ = rulebook.shipped()
    apply(world, "".join(line for line in rules.splitlines(True) if not line.startswith("role:annotator")))


def ended_long_ago(world: World, held: Held) -> None:
    """It was begun twelve hours ago."""
    world.change(Lease, held.lease.id, created_at=world.now() - timedelta(hours=12))


def apply(world: World, rules: str) -> None:
    """Put rules in force."""
    with world.database.transaction() as tx:
        networks = rulebook.in_force(tx).networks
        rulebook.put_in_force(tx, rules=rules, networks=networks, proposed_by=None, approved_by=None, now=clock(tx))


@pytest.fixture
def shipped_rules(world: World) -> Iterator[None]:
    """Whatever a test puts in force, the shipped rules are afterwards."""
    yield
    apply(world, rulebook.shipped()[1])


def reasons(world: World, lease_id: str) -> list[str]:
    """What the newest event about a lease gives as reasons."""
    with world.database.transaction() as tx:
        newest = select(Event.leaf).where(Event.subject == lease_id).order_by(Event.number.desc()).limit(1)
        return list(json.loads(tx.execute(newest).scalar_one())["details"]["reasons"])


@dataclass
class Held:
    """A lease, and what it rests on."""

    lease: Lease
    caller: Caller
    dataset: Dataset
    grant: Grant
    slice_id: str


CAUSES: dict[str, Callable[[World, Held], None]] = {
    "grant_ended": lambda world, held: world.change(Grant, held.grant.id, ends_at=world.now()),
    "no_grant": lambda world, held: world.change(Grant, held.grant.id, revoked_at=world.now()),
    "factor_stale": stale,
    "caller_suspended": lambda world, held: world.change(Person, held.caller.id, status="suspended"),
    "vendor_suspended": lambda world, held: world.change(Vendor, held.caller.vendor_id or "", status="suspended"),
    "dataset_suspended": lambda world, held: world.change(Dataset, held.dataset.id, status="suspended"),
    "no_rule": other_rules,
    "slice_unknown": lambda world, held: world.change(Slice, held.slice_id, state="retired"),
    "not_longer": ended_long_ago,
}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.usefixtures("shipped_rules")
def test_unmet_condition_refuses_renewal_and_records_an_event(world: World, cause: str) -> None:
    """Each cause as it is found when it came by another way than ending the lease at once."""
    signed, dataset, grant = world.guest()
    lease = world.issue(signed, dataset).lease
    held = Held(lease, signed.caller, dataset, grant, lease.slice_id)
    CAUSES[cause](world, held)
    with pytest.raises((Denied, FactorNeeded, NotFound, Conflict)) as refused:
        renew(world.parts, held.caller, lease.id)
    assert cause in reasons(world, lease.id), refused.value
    found = world.lease(lease.id)
    assert (found.state, found.expires_at, found.renewed_at) == ("active", lease.expires_at, None)
    assert world.events(lease.id) == ["lease.issued", "lease.not_renewed"]
    world.change(Lease, lease.id, expires_at=world.now())
    world.wait_sweeping(lease.id, "expired")
    assert world.events(lease.id)[-2:] == ["lease.ending", "lease.expired"]
    assert world.roles_of(lease.id) == 0


def test_renewal_with_a_stale_factor_asks_for_a_fresh_one(world: World) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    stale = world.now() - timedelta(hours=2)
    caller = replace(signed.caller, factor_at=stale)
    with pytest.raises(FactorNeeded):
        renew(world.parts, caller, lease.id)
    assert world.lease(lease.id).expires_at == lease.expires_at


def test_renewal_is_bounded_by_grant_rule_and_twelve_hours(world: World) -> None:
    signed, dataset, grant = world.guest()
    lease = world.issue(signed, dataset, lifetime=60).lease
    soon = world.now() + timedelta(seconds=90)
    world.change(type(grant), grant.id, ends_at=soon)
    assert renew(world.parts, signed.caller, lease.id, 3600).expires_at == soon
    with pytest.raises(Conflict) as longest:
        renew(world.parts, signed.caller, lease.id, 3600)
    assert longest.value.code == "not_longer"
    world.change(type(grant), grant.id, ends_at=soon + timedelta(days=1))
    world.change(Lease, lease.id, created_at=world.now() - timedelta(hours=11, minutes=55))
    bound = renew(world.parts, signed.caller, lease.id, 3600).expires_at - world.now()
    assert bound < timedelta(minutes=5), "twelve hours after it began a new one is taken"


def test_renewed_lease_is_rechecked_with_the_facts_of_its_renewal(world: World) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset, lifetime=60).lease
    world.change(Lease, lease.id, created_at=world.now() - timedelta(hours=2))
    renewed = renew(world.parts, signed.caller, lease.id, 1800)
    renewing.redecide_all(world.ender)
    now = world.lease(lease.id)
    assert (now.state, now.expires_at) == ("active", renewed.expires_at)


def test_only_the_holder_renews_and_only_live_leases(world: World) -> None:
    signed, dataset, grant = world.guest()
    other, _, _ = world.guest()
    admin = world.person(roles=("admin",))
    lease = world.issue(signed, dataset).lease
    token = world.issue(signed, dataset, kind="token").lease
    with pytest.raises(NotFound):
        renew(world.parts, other.caller, lease.id)
    with pytest.raises(Forbidden):
        renew(world.parts, admin.caller, lease.id)
    with pytest.raises(Invalid) as refused:
        renew(world.parts, signed.caller, token.id)
    assert refused.value.code == "not_renewable"
    with pytest.raises(NotFound):
        renew(world.parts, signed.caller, "l01' OR 1=1")
    with world.database.transaction() as tx:
        revoke_grant(tx, grant.id, admin.caller, "over", world.now())
    with pytest.raises(Conflict) as over:
        renew(world.parts, signed.caller, lease.id)
    assert over.value.code == "lease_over"
    world.wait_sweeping(lease.id, "revoked")


def test_renewal_with_a_down_backend_changes_nothing(world: World) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    lengthened(world, lease)
    world.stack.bao.stop()
    try:
        with pytest.raises(BackendDown):
            renew(world.parts, signed.caller, lease.id, 1800)
    finally:
        world.stack.bao.start()
    assert world.lease(lease.id).expires_at == lease.expires_at
    assert world.events(lease.id)[-1] == "lease.not_renewed"
