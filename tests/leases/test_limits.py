"""What bounds a lease when it is issued or renewed, on records alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from broker.base.errors import Conflict, Denied, Invalid
from broker.base.ids import new_lease_id
from broker.kinds.discovery import kinds
from broker.kinds.values import Issued
from broker.leases import issuing, limits, renewing
from broker.leases.renewing import renew
from broker.models import LIVE_STATES, Grant, Lease
from broker.revocation import closing, ending
from tests.support.records import dataset_on_record, guest_on_record
from tests.support.world import Signed, World


@pytest.mark.parametrize("state", LIVE_STATES)
def test_leases_in_every_live_state_count_towards_the_cap(world: World, state: str) -> None:
    signed, dataset, _ = guest_on_record(world)
    most = world.settings.max_live_leases
    first, *_ = [world.issue(signed, dataset, kind="token").lease for _ in range(most)]
    world.change(Lease, first.id, state=state)
    with pytest.raises(Conflict) as refused:
        world.issue(signed, dataset, kind="token")
    assert refused.value.code == "too_many_leases"
    world.change(Lease, first.id, state="expired")
    assert world.issue(signed, dataset, kind="token").values


@pytest.mark.parametrize(("created", "expires", "counts"), [(1, -1, True), (9000, 1, True), (9000, -1, False)])
def test_ended_lease_takes_room_while_its_backend_still_refuses_it(
    world: World, created: int, expires: int, counts: bool
) -> None:
    signed, dataset, grant = guest_on_record(world)
    lease, now = world.issue(signed, dataset, kind="token").lease, world.now()
    kept = {column.name: getattr(lease, column.name) for column in Lease.__table__.columns}
    kept |= {
        "kind": "s3",
        "state": "revoked",
        "created_at": now - timedelta(seconds=created),
        "expires_at": now + timedelta(seconds=expires),
    }
    assert 1 < (kinds["s3"].ending.remembered or 0) < 9000
    for _ in range(limits.MOST_REMEMBERED):
        world.add(Lease(**kept | {"id": new_lease_id(), "holder_hash": None}))
    with world.database.transaction() as tx:
        refused = limits.reached(tx, grant.id, signed.caller, kinds["s3"], 5, now)
    assert (refused is not None) == counts


def test_idempotency_key_is_one_holders_and_for_one_request(world: World) -> None:
    vendor = world.vendor()
    dataset, other = (dataset_on_record(world, vendor) for _ in range(2))
    one, two = world.person(vendor), world.person(vendor)
    for signed in (one, two):
        world.grant(dataset, signed)
        world.grant(other, signed)
    first = world.issue(one, dataset, kind="token", idempotency_key="once").lease
    assert world.issue(two, dataset, kind="token", idempotency_key="once").lease.id != first.id
    for name in ("deidentified", None):
        with pytest.raises(Conflict, match="different request"):
            world.issue(one, other, kind="token", idempotency_key="once", slice=name)


def test_slice_is_served_as_its_own_kind_only(world: World) -> None:
    signed, dataset, _ = guest_on_record(world)
    with pytest.raises(Invalid) as refused:
        world.issue(signed, dataset, kind="s3")
    assert refused.value.field == "/kind"


def test_records_that_may_have_gone_back_issue_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the witness does about them is tested with `guestkey` itself; here, that issuing asks it first."""
    signed, dataset, _ = guest_on_record(world)

    def gone_back(*_: object) -> None:
        raise Conflict("the records are older than their witness")

    monkeypatch.setattr(closing, "check_witness_once", gone_back)
    with pytest.raises(Conflict, match="witness"):
        world.issue(signed, dataset, kind="token")
    assert world.leases_of(signed) == []


def pending(world: World, **changes: Any) -> Lease:
    """A lease whose credential has just been made."""
    signed, dataset, _ = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    world.change(Lease, lease.id, **({"state": "pending", "activated_at": None} | changes))
    return world.lease(lease.id)


def test_lease_whose_deadline_has_passed_never_becomes_active(world: World) -> None:
    lease = pending(world, deadline=world.now())
    with pytest.raises(Conflict) as ended:
        issuing._activate(world.parts, lease, Issued(values={}, backend_lease_id="at/the/backend"))
    found = world.lease(lease.id)
    assert (ended.value.code, found.state, found.backend_lease_id) == ("ended_meanwhile", "revoking", "at/the/backend")


def test_lease_marked_while_its_credential_was_made_never_becomes_active(world: World) -> None:
    lease = pending(world, state="revoking", deadline=world.now() + timedelta(minutes=1))
    with pytest.raises(Conflict):
        issuing._activate(world.parts, lease, Issued(values={}, backend_lease_id="at/the/backend"))
    found = world.lease(lease.id)
    assert (found.state, found.backend_lease_id) == ("revoking", "at/the/backend"), "the worker ends it by this name"


@pytest.fixture
def renewable(world: World) -> Iterator[tuple[Signed, Lease, Grant]]:
    """A lease as if it were of a kind that is renewed; its backend knows nothing of it."""
    signed, dataset, grant = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    world.change(Lease, lease.id, kind="postgres")
    yield signed, world.lease(lease.id), grant
    world.change(Lease, lease.id, kind="token")


def test_lease_whose_life_is_over_is_not_renewed(world: World, renewable: tuple[Signed, Lease, Grant]) -> None:
    signed, lease, _ = renewable
    world.change(Lease, lease.id, expires_at=world.now())
    with pytest.raises(Conflict) as over:
        renew(world.parts, signed.caller, lease.id)
    assert over.value.code == "lease_over"
    assert world.events(lease.id) == ["lease.issued"]


def test_lease_is_renewed_on_its_own_grant_only(world: World, renewable: tuple[Signed, Lease, Grant]) -> None:
    signed, lease, grant = renewable
    world.add(Grant(**_like(grant) | {"id": f"{grant.id[:-4]}zzzz"}))
    world.change(Grant, grant.id, ends_at=world.now())
    with pytest.raises(Denied) as denied:
        renew(world.parts, signed.caller, lease.id)
    assert [reason.code for reason in denied.value.decision.reasons] == ["grant_ended"]


def test_renewal_without_a_lifetime_stays_within_what_the_rules_now_allow(
    world: World, renewable: tuple[Signed, Lease, Grant]
) -> None:
    signed, lease, grant = renewable
    now = world.now()
    world.change(Lease, lease.id, created_at=now - timedelta(seconds=890), expires_at=now + timedelta(seconds=10))
    world.change(Grant, grant.id, max_lifetime=120)
    with world.database.transaction() as tx:
        outcome = renewing._decide(world.parts, tx, signed.caller, lease.id, None)
        assert isinstance(outcome, renewing._Renewed)
        assert outcome.lease.expires_at <= now + timedelta(seconds=150)


def test_lease_marked_while_its_renewal_is_decided_is_not_lengthened(
    world: World, renewable: tuple[Signed, Lease, Grant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the grant it rests on cannot end meanwhile: the renewal holds it."""
    signed, lease, grant = renewable
    record = issuing.record_decision

    def meanwhile(*arguments: Any) -> str:
        with pytest.raises(Conflict, match="under way"), world.database.transaction() as tx:
            tx.execute(select(Grant).where(Grant.id == grant.id).with_for_update(nowait=True)).all()
        with world.database.transaction() as tx:
            ending.revoke_lease(tx, tx.get_one(Lease, lease.id), signed.caller, "", world.now())
        return record(*arguments)

    monkeypatch.setattr(renewing, "record_decision", meanwhile)
    with pytest.raises(Conflict) as over:
        renew(world.parts, signed.caller, lease.id, 900)
    found = world.lease(lease.id)
    assert (over.value.code, found.state, found.expires_at) == ("lease_over", "revoking", lease.expires_at)


def _like(grant: Grant) -> dict[str, Any]:
    return {column.name: getattr(grant, column.name) for column in Grant.__table__.columns}
