"""Promise 1: no credential without a decision that allowed it, recorded before the secret existed."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from broker.base.errors import BackendDown, Denied
from broker.models import Event, Lease
from tests.support.world import World


def test_decision_and_pending_lease_are_committed_before_the_secret(world: World) -> None:
    signed, dataset, grant = world.guest()
    seen: dict[str, object] = {}
    original = world.parts.vault.database_credential

    def looking(*arguments: object, **named: object) -> object:
        with world.database.transaction() as tx:
            lease = tx.scalars(select(Lease).where(Lease.grant_id == grant.id)).one()
            decision = tx.scalars(select(Event).where(Event.id == lease.decision_id)).one()
            seen.update(state=lease.state, kind=decision.kind, leaf=json.loads(decision.leaf))
        return original(*arguments, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.parts.vault, "database_credential", looking)
        handed = world.issue(signed, dataset)
    assert seen["state"] == "pending"
    assert seen["kind"] == "decision.allowed"
    leaf = seen["leaf"]
    assert isinstance(leaf, dict)
    assert leaf["details"]["grant"] == grant.id
    assert handed.lease.state == "active"


def test_denial_creates_no_lease_and_contacts_no_backend(world: World) -> None:
    vendor = world.vendor()
    signed, dataset = world.person(vendor), world.dataset(vendor)

    def never(*_: object, **__: object) -> object:
        raise AssertionError("a denied request reached the key store")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.parts.vault, "child_token", never)
        with pytest.raises(Denied) as refused:
            world.issue(signed, dataset)
    with world.database.transaction() as tx:
        assert tx.scalars(select(Lease).where(Lease.person_id == signed.id)).all() == []
        event = tx.get(Event, tx.scalars(select(Event.number).where(Event.id == refused.value.decision_id)).one())
        assert event is not None
        assert event.kind == "decision.denied"


def test_change_fails_if_its_event_cannot_be_written(world: World) -> None:
    signed, dataset, grant = world.guest()

    def full(*_: object, **__: object) -> str:
        raise BackendDown("the log is full", backend="postgresql")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("broker.leases.issuing.audit.record", full)
        with pytest.raises(BackendDown):
            world.issue(signed, dataset)
    with world.database.transaction() as tx:
        assert tx.scalars(select(Lease).where(Lease.grant_id == grant.id)).all() == []
