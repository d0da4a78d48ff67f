"""Ending a right ends its leases, and shutting somebody out ends what they signed in with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pytest
from sqlalchemy import select

from broker.base.database import Transaction
from broker.base.errors import Conflict, NotSignedIn
from broker.identity import caller
from broker.identity.caller import Caller
from broker.models import ApiToken, Dataset, Lease, Person, Session, Vendor
from broker.revocation import ending
from tests.support.records import dataset_on_record
from tests.support.world import Signed, World


@dataclass
class Scene:
    """A vendor's person, team member and service, each with a lease on a dataset, and a bystander of another vendor."""

    world: World
    vendor: Vendor
    dataset: Dataset
    person: Signed
    service: Signed
    member: Signed
    team_id: str
    leases: dict[str, Lease]
    admin: Caller

    def end(self, how: Callable[[Scene, Transaction, datetime], object]) -> set[str]:
        """End a right; whose leases are ending then."""
        with self.world.database.transaction() as tx:
            how(self, tx, self.world.now())
        return {name for name, lease in self.leases.items() if self.world.lease(lease.id).state == "revoking"}

    def signed_in(self, who: Signed) -> bool:
        """Whether a session or token of somebody still counts, were nothing but that asked."""
        owner = (ApiToken.service_id if who.caller.kind == "service" else ApiToken.person_id) == who.id
        with self.world.database.transaction() as tx:
            tokens = tx.scalars(select(ApiToken.id).where(owner, ApiToken.ended_at.is_(None))).all()
            sessions = tx.scalars(
                select(Session.id).where(Session.person_id == who.id, Session.ended_at.is_(None))
            ).all()
        return bool(tokens or sessions)


@pytest.fixture
def scene(world: World) -> Scene:
    """Everybody with a lease."""
    vendor, other = world.vendor(), world.vendor()
    dataset = dataset_on_record(world, vendor, other)
    person, member, service, bystander = (
        world.person(vendor),
        world.person(vendor),
        world.service(vendor),
        world.person(other),
    )
    team = world.team(vendor, member)
    world.grant(dataset, service, "pipeline")
    for holder in (person, team, bystander):
        world.grant(dataset, holder)
    holders = {"person": person, "member": member, "service": service, "bystander": bystander}
    for signed in (person, member, bystander):
        world.session(signed)
    leases = {name: world.issue(signed, dataset, kind="token").lease for name, signed in holders.items()}
    admin = world.person(roles=("admin",)).caller
    return Scene(world, vendor, dataset, person, service, member, team.id, leases, admin)


WAYS: dict[str, tuple[Callable[[Scene, Transaction, datetime], object], set[str]]] = {
    "person": (
        lambda scene, tx, now: ending.suspend_person(tx, scene.person.id, scene.admin, "", now),
        {"person"},
    ),
    "service": (
        lambda scene, tx, now: ending.suspend_service(tx, scene.service.id, scene.admin, "", now),
        {"service"},
    ),
    "vendor": (
        lambda scene, tx, now: ending.suspend_vendor(tx, scene.vendor.id, scene.admin, "", now),
        {"person", "member", "service"},
    ),
    "dataset": (
        lambda scene, tx, now: ending.suspend_dataset(tx, scene.dataset.id, scene.admin, "", now),
        {"person", "member", "service", "bystander"},
    ),
    "slice": (
        lambda scene, tx, now: ending.retire_slice(tx, scene.leases["person"].slice_id, scene.admin, "", now),
        {"person", "member", "service", "bystander"},
    ),
    "offer": (
        lambda scene, tx, now: ending.withdraw_offer(tx, scene.dataset.id, scene.vendor.id, scene.admin, now),
        {"person", "member", "service"},
    ),
    "team": (
        lambda scene, tx, now: ending.leave_team(tx, scene.team_id, scene.member.id, scene.admin, now),
        {"member"},
    ),
    "grant": (
        lambda scene, tx, now: ending.revoke_grant(tx, scene.leases["member"].grant_id, scene.admin, "", now),
        {"member"},
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_ending_a_right_ends_its_leases_and_no_others(scene: Scene, way: str) -> None:
    how, ended = WAYS[way]
    assert scene.end(how) == ended


@pytest.mark.parametrize(("way", "out"), [("person", {"person"}), ("vendor", {"person", "member", "service"})])
def test_shutting_out_ends_sessions_and_tokens_for_good(scene: Scene, way: str, out: set[str]) -> None:
    scene.end(WAYS[way][0])
    everybody = {"person": scene.person, "member": scene.member, "service": scene.service}
    assert {name for name, signed in everybody.items() if not scene.signed_in(signed)} == out


def test_suspending_a_service_ends_its_tokens_for_good(scene: Scene) -> None:
    scene.end(WAYS["service"][0])
    assert not scene.signed_in(scene.service) and scene.signed_in(scene.person)


def test_lease_that_is_being_made_is_ended_too(scene: Scene) -> None:
    scene.world.change(Lease, scene.leases["person"].id, state="pending")
    assert scene.end(WAYS["person"][0]) == {"person"}


def test_vendor_that_was_offboarded_is_not_suspended_afterwards(scene: Scene) -> None:
    """A suspended vendor can be resumed; one that was offboarded cannot."""
    scene.world.change(Vendor, scene.vendor.id, status="offboarded")
    with pytest.raises(Conflict):
        scene.end(WAYS["vendor"][0])
    with scene.world.database.transaction() as tx:
        assert tx.get_one(Vendor, scene.vendor.id).status == "offboarded"


@pytest.mark.parametrize("status", ["suspended", "refused"])
def test_token_of_somebody_shut_out_names_nobody(world: World, status: str) -> None:
    signed = world.person(world.vendor())
    with world.database.transaction() as tx:
        assert caller.by_token(tx, signed.token, None).caller.id == signed.id
    world.change(Person, signed.id, status=status)
    with pytest.raises(NotSignedIn), world.database.transaction() as tx:
        caller.by_token(tx, signed.token, None)
