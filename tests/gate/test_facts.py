"""Facts: every record a decision rests on counts, and none of them changes while a decision is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Update, select, update

from broker.base.errors import Conflict
from broker.gate.facts import Ask, gather
from broker.models import (
    Dataset,
    Grant,
    Offer,
    Person,
    PolicyInForce,
    Service,
    Slice,
    TeamMember,
    Vendor,
)
from broker.policies import decide
from tests.support.records import guest_on_record, service_on_record
from tests.support.world import Signed, World


class RolledBack(Exception):
    """Ends a transaction whose changes nobody else may see."""


@dataclass(frozen=True)
class Guest:
    """Somebody for whom everything holds, and what that rests on."""

    world: World
    signed: Signed
    dataset: Dataset
    grant: Grant

    def codes(self, *changes: Update, lifetime: int = 300) -> list[str]:
        """Why access is denied once the records are changed; the changes are undone."""
        found: list[str] = []
        try:
            with self.world.database.transaction() as tx:
                for change in changes:
                    tx.execute(change)
                gathered = gather(
                    tx, self.signed.caller, Ask(self.dataset.slug, "read", "deidentified", None, lifetime)
                )
                rules = self.world.parts.rulebook.at(tx, gathered.revision)
                found += [reason.code for reason in decide(gathered.facts, rules, gathered.now).reasons]
                raise RolledBack
        except RolledBack:
            return found


@pytest.fixture
def guest(world: World) -> Guest:
    """A vendor's engineer."""
    return Guest(world, *guest_on_record(world))


@pytest.fixture
def service(world: World) -> Guest:
    """A vendor's service."""
    return Guest(world, *service_on_record(world))


def _grant(guest: Guest, **values: Any) -> Update:
    return update(Grant).where(Grant.id == guest.grant.id).values(**values)


def _dataset(guest: Guest, **values: Any) -> Update:
    return update(Dataset).where(Dataset.id == guest.dataset.id).values(**values)


def _slice(guest: Guest, **values: Any) -> Update:
    return update(Slice).where(Slice.dataset_id == guest.dataset.id, Slice.name == "deidentified").values(**values)


def _offer(guest: Guest, **values: Any) -> Update:
    return update(Offer).where(Offer.dataset_id == guest.dataset.id).values(**values)


def _of_another_team(guest: Guest) -> Update:
    team = guest.world.team(guest.world.vendor())
    return _grant(guest, person_id=None, team_id=team.id)


Change = Callable[[Guest], Update]
CHANGES: dict[str, tuple[str, Change]] = {
    "person": (
        "caller_suspended",
        lambda guest: update(Person).where(Person.id == guest.signed.id).values(status="suspended"),
    ),
    "vendor": (
        "vendor_suspended",
        lambda guest: update(Vendor).where(Vendor.id == guest.signed.caller.vendor_id).values(status="suspended"),
    ),
    "dataset": ("dataset_suspended", lambda guest: _dataset(guest, status="suspended")),
    "retention": ("retention_over", lambda guest: _dataset(guest, retention_until=guest.world.now())),
    "labels": ("no_rule", lambda guest: _dataset(guest, labels=[])),
    "who labelled": ("labelled_by_you", lambda guest: _dataset(guest, labelled_by=[guest.signed.id])),
    "offer ended": ("dataset_unknown", lambda guest: _offer(guest, ended_at=guest.world.now())),
    "offer to others": ("dataset_unknown", lambda guest: _offer(guest, vendor_id=guest.world.vendor().id)),
    "slice not ready": ("slice_not_ready", lambda guest: _slice(guest, state="registering")),
    "slice retired": ("slice_unknown", lambda guest: _slice(guest, state="retired")),
    "slice changed": ("slice_changed", lambda guest: _slice(guest, state="changed")),
    "slice for writing": ("action_not_served", lambda guest: _slice(guest, actions=["write"])),
    "who bound": ("bound_by_you", lambda guest: _slice(guest, bound_by=guest.signed.id)),
    "grant revoked": ("no_grant", lambda guest: _grant(guest, revoked_at=guest.world.now())),
    "grant of somebody else": ("no_grant", lambda guest: _grant(guest, person_id=guest.world.person().id)),
    "grant of another team": ("no_grant", _of_another_team),
    "grant ended": ("grant_ended", lambda guest: _grant(guest, ends_at=guest.world.now())),
    "grant not begun": (
        "grant_not_started",
        lambda guest: _grant(guest, starts_at=guest.world.now() + timedelta(hours=1)),
    ),
    "grant for a slice": ("slice_not_granted", lambda guest: _grant(guest, slice_name="full")),
    "grant for less time": ("lifetime_too_long", lambda guest: _grant(guest, max_lifetime=299)),
    "grant revived by a backup": (
        "grant_held",
        lambda guest: update(PolicyInForce).values(held_before=guest.world.now()),
    ),
    "closed": ("closed", lambda guest: update(PolicyInForce).values(closed_at=guest.world.now())),
}


def test_with_everything_in_order_access_is_allowed(guest: Guest, service: Guest) -> None:
    assert guest.codes() == service.codes() == []


@pytest.mark.parametrize("what", CHANGES)
def test_each_record_alone_denies(guest: Guest, what: str) -> None:
    code, change = CHANGES[what]
    assert guest.codes(change(guest)) == [code]


def test_grant_confirmed_after_a_restore_counts(guest: Guest) -> None:
    now = guest.world.now()
    held = update(PolicyInForce).values(held_before=now)
    assert guest.codes(held, _grant(guest, confirmed_at=now)) == []


@pytest.mark.parametrize("behind", ["created_by", "secret_seen_by"])
def test_slice_is_closed_to_the_service_of_the_person_who_bound_it(service: Guest, behind: str) -> None:
    person = service.world.person()
    owned = update(Service).where(Service.id == service.signed.id).values(**{behind: person.id})
    assert service.codes(owned, _slice(service, bound_by=person.id)) == ["bound_by_you"]


def test_secret_shown_to_another_person_leaves_the_first_one_out(service: Guest) -> None:
    maker, shown = service.world.person(), service.world.person()
    owned = update(Service).where(Service.id == service.signed.id).values(created_by=maker.id, secret_seen_by=shown.id)
    assert service.codes(owned, _slice(service, bound_by=maker.id)) == []


def test_nothing_a_decision_rests_on_changes_while_it_is_made(guest: Guest) -> None:
    world, id_ = guest.world, guest.signed.id
    team = world.team(world.vendor(), guest.signed)
    world.change(Grant, guest.grant.id, person_id=None, team_id=team.id)
    rested_on: list[tuple[type[Any], Any]] = [
        (Person, Person.id == id_),
        (Vendor, Vendor.id == guest.signed.caller.vendor_id),
        (Dataset, Dataset.id == guest.dataset.id),
        (Offer, Offer.dataset_id == guest.dataset.id),
        (Grant, Grant.id == guest.grant.id),
        (TeamMember, (TeamMember.team_id == team.id) & (TeamMember.person_id == id_)),
        (PolicyInForce, PolicyInForce.singleton == 1),
    ]
    with world.database.transaction() as deciding:
        gather(deciding, guest.signed.caller, Ask(guest.dataset.slug))
        changed = [record for record, where in rested_on if not _is_locked(world, record, where)]
    assert changed == []
    with world.database.transaction() as tx:
        gather(tx, guest.signed.caller, Ask(guest.dataset.slug), locking=False)
        assert not _is_locked(world, Grant, Grant.id == guest.grant.id), "only looking must keep nobody waiting"


def test_two_decisions_for_one_holder_follow_each_other(guest: Guest, service: Guest) -> None:
    for one, record in ((guest, Person), (service, Service)):
        with one.world.database.transaction() as tx:
            gather(tx, one.signed.caller, Ask(one.dataset.slug))
            assert _is_locked(one.world, record, record.id == one.signed.id, share=True)
            assert not _is_locked(one.world, Grant, Grant.id == one.grant.id, share=True), "others decide meanwhile"


def _is_locked(world: World, record: type[Any], where: Any, *, share: bool = False) -> bool:
    """Whether an UPDATE would have to wait (with `share`: whether another decision would)."""
    try:
        with world.database.transaction() as tx:
            tx.execute(select(record).where(where).with_for_update(nowait=True, key_share=not share, read=share)).all()
    except Conflict:
        return True
    return False
