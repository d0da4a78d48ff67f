"""Who sees what and who decides, asked of `permissions` itself: the cases that a screen rarely shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from broker.base.ids import new_id
from broker.identity import caller, permissions
from broker.identity.caller import Caller
from broker.models import Dataset, Grant, Person, RoleHeld, Vendor
from tests.support.world import Signed, World


def _caller(**changes: Any) -> Caller:
    signed_in = {"signed_in_at": None, "holder_id": "at_x", "how": "api_token", "name": ""}
    return Caller(**({"kind": "person", "id": "pe_x", "vendor_id": None} | signed_in | changes))


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_roles_of_the_organisation_count_for_its_own_people_only(role: str) -> None:
    own = _caller(roles=frozenset({role}))
    assert permissions.sees_everything(own)
    for other in (
        replace(own, vendor_id="vn_x"),
        replace(own, kind="service"),
        replace(own, roles=frozenset({"lead"})),
    ):
        assert not permissions.sees_everything(other) and not other.is_admin and not other.is_auditor


def test_a_lead_leads_one_vendor() -> None:
    lead = _caller(vendor_id="vn_x", roles=frozenset({"lead"}))
    assert permissions.is_lead(lead, "vn_x")
    assert not permissions.is_lead(lead, "vn_y")
    assert not permissions.is_lead(lead, None)
    assert not permissions.is_lead(replace(lead, roles=frozenset()), "vn_x")
    assert not permissions.is_lead(replace(lead, kind="service"), "vn_x")
    assert not permissions.is_lead(replace(lead, vendor_id=None), None), "the organisation has no lead"


def test_a_service_of_the_organisation_sees_no_vendor_and_only_what_it_holds_now(world: World) -> None:
    service, other, vendor = world.service(), world.service(), world.vendor()
    held, once, theirs = (world.dataset(register=False) for _ in range(3))
    world.grant(held, service, "pipeline")
    world.grant(once, service, "pipeline", revoked_at=world.now())
    world.grant(theirs, other, "pipeline")
    with world.database.transaction() as tx:
        assert vendor.id not in tx.scalars(select(Vendor.id).where(permissions.vendors_seen(service.caller))).all()
        seen = tx.scalars(select(Dataset.id).where(permissions.datasets_seen(service.caller))).all()
    assert list(seen) == [held.id]


def looks_after(world: World, signed: Signed, dataset: Dataset) -> bool:
    """Whether somebody decides about a dataset, as its owner or a steward."""
    with world.database.transaction() as tx:
        return dataset.id in tx.scalars(permissions.looked_after(signed.caller)).all()


@pytest.mark.parametrize(
    ("changes", "decides"),
    [
        ({}, True),
        ({"role": "annotator"}, False),
        ({"revoked_at": timedelta(0)}, False),
        ({"starts_at": timedelta(hours=1)}, False),
        ({"ends_at": timedelta(0)}, False),
    ],
)
def test_a_steward_decides_while_the_grant_lasts(world: World, changes: dict[str, Any], decides: bool) -> None:
    steward, other, dataset = world.person(), world.person(), world.dataset(register=False)
    now = world.now()
    values = {name: now + value if isinstance(value, timedelta) else value for name, value in changes.items()}
    grant = world.grant(dataset, steward, "steward")
    world.change(Grant, grant.id, **({"role": "steward"} | values))
    assert looks_after(world, steward, dataset) == decides
    assert not looks_after(world, other, dataset)


def test_neither_vendors_people_nor_suspended_stewards_decide(world: World) -> None:
    vendor = world.vendor()
    guest, steward = world.person(vendor), world.person()
    dataset = world.dataset(vendor, owner=guest, register=False)
    for signed in (guest, steward):
        world.grant(dataset, signed, "steward")
    assert not looks_after(world, guest, dataset)
    with world.database.transaction() as tx:
        assert list(tx.scalars(permissions.stewards_of().where(Grant.dataset_id == dataset.id))) == [steward.id]
    world.change(Person, steward.id, status="suspended")
    assert not looks_after(world, steward, dataset)


@pytest.mark.parametrize(
    ("ends", "holds"), [({}, True), ({"ended_at": 0}, False), ({"until": 0}, False), ({"until": 60}, True)]
)
def test_a_role_counts_until_it_ends(world: World, ends: dict[str, int], holds: bool) -> None:
    signed = world.person()
    values = {name: world.now() + timedelta(seconds=seconds) for name, seconds in ends.items()}
    world.add(RoleHeld(id=new_id("rh"), person_id=signed.id, role="admin", **values))
    with world.database.transaction() as tx:
        assert caller.by_token(tx, signed.token, None).caller.is_admin == holds
