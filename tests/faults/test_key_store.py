"""OpenBao sealed and unsealed, and OpenBao whose audit file finds no room, while issuing and while ending."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.base.database import clock
from broker.base.errors import BackendDown
from broker.kinds.discovery import kinds
from broker.leases import issuing
from broker.models import Lease
from broker.revocation import ending
from tests.faults import steps
from tests.faults.guests import Guest, guest
from tests.faults.holding import MOST_SECONDS, leases_of, nothing_astray, settle
from tests.faults.house import House, own_house
from tests.support.world import World

pytestmark = pytest.mark.whole
# Kinds whose backends are part of every house.
HERE = sorted({"postgres", "s3", "token"} & kinds.keys())
THROUGH_OPENBAO = sorted(name for name in HERE if kinds[name].needs_child_token)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house of this module's own."""
    with own_house() as made:
        yield made


@pytest.fixture
def there(house: House) -> Iterator[World]:
    """The world in it."""
    with house.world() as made:
        yield made


def issue(world: World, one: Guest) -> Any:
    return one.issue(
        world,
    )


def refused(world: World, one: Guest) -> None:
    began = time.monotonic()
    with pytest.raises(BackendDown) as down:
        issue(world, one)
    assert time.monotonic() - began < MOST_SECONDS
    assert down.value.detail and down.value.advice


def again(world: World, one: Guest, *, seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while True:
        try:
            return issue(world, one)
        except BackendDown:
            assert time.monotonic() < end
            time.sleep(0.3)


def revoke(world: World, lease_id: str) -> None:
    with world.database.transaction() as tx:
        ending.mark(tx, Lease.id == lease_id, cause="revoked", by="system", now=clock(tx))


@pytest.mark.parametrize("name", HERE)
def test_openbao_sealed_before_issuing(house: House, there: World, name: str) -> None:
    one, other = guest(there, name), guest(there, name)
    issue(there, other)
    house.seal()
    try:
        refused(there, one)
        (lease,) = leases_of(there, one)
        assert lease.state == ("pending" if kinds[name].at_backend else "revoking")
    finally:
        house.unseal()
    third = guest(there, name)
    assert third.opens(again(there, third).values)
    for done in (one, other, third):
        settle(there, done)
    nothing_astray(there)


@pytest.mark.parametrize("name", THROUGH_OPENBAO)
def test_openbao_sealed_after_the_child_token(
    house: House, there: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = guest(there, name)
    after_once(monkeypatch, issuing, "_awaited", house.seal)
    try:
        refused(there, one)
    finally:
        house.unseal()
    again(there, guest(there, name))
    settle(there, one)
    assert leases_of(there, one)[0].state == "revoked"


@pytest.mark.parametrize("name", HERE)
def test_openbao_sealed_before_the_lease_is_recorded(
    house: House, there: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made works; it is handed over, and ends: early if it cannot be lengthened."""
    one = guest(there, name)
    after_once(monkeypatch, kinds[name], "issue", house.seal)
    try:
        handed = issue(there, one)
    finally:
        house.unseal()
    assert one.opens(handed.values)
    settle(there, one)
    assert not one.opens(handed.values)


@pytest.mark.parametrize("name", HERE)
def test_openbao_sealed_while_ending(house: House, there: World, name: str) -> None:
    """Where the backend itself can be asked, the end does not wait for OpenBao; where it cannot, nothing is claimed."""
    one = guest(there, name)
    handed = again(there, one)
    # A worker that runs has looked around once, and so knows its log-ins at backends.
    nothing_astray(there)
    house.seal()
    try:
        revoke(there, handed.lease.id)
        there.sweep()
        lease = there.lease(handed.lease.id)
        assert lease.state in ("revoked", "revoke_failed", "revoking")
        if name == "postgres":
            assert lease.state == "revoked", "ended by hand, and PostgreSQL said so"
            assert not one.opens(handed.values)
    finally:
        house.unseal()
    there.wait_sweeping(handed.lease.id, "revoked", seconds=30)
    assert not one.opens(handed.values)


@pytest.mark.parametrize("name", HERE)
def test_openbao_full_disk_before_issuing(house: House, there: World, name: str) -> None:
    """OpenBao refuses what it cannot write down, before it does it."""
    one, other = guest(there, name), guest(there, name)
    again(there, other)
    with house.full_disk():
        refused(there, one)
    again(there, guest(there, name))
    settle(there, one)
    nothing_astray(there)


@pytest.mark.parametrize("name", THROUGH_OPENBAO)
def test_openbao_full_disk_while_answering(
    house: House, there: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 3: OpenBao answers 500, and what it was asked for is there all the same, without any crash."""
    # How long the two lines of the request at a backend are is seen from one that went well.
    with house.full_disk(room=1 << 20):
        before = len(house.audited())
        issue(there, guest(there, name))
        asked, answered = made_at_backend(house.audited()[before:])
    one = guest(there, name)
    made = one.kind.issue
    struck: list[int] = []

    def without_room_for_the_answer(*arguments: Any) -> Any:
        with house.full_disk(room=len(asked) + len(answered) // 2):
            struck.append(1)
            return made(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(one.kind, "issue", without_room_for_the_answer)
        refused(there, one)
    assert struck
    (lease,) = leases_of(there, one)
    assert lease.state == "pending"
    if name == "postgres":
        assert there.roles_of(lease.id) == 1, "the user is there though OpenBao said that it failed"
        assert lease.backend_lease_id is None, "and nobody knows OpenBao's lease"
    settle(there, one)
    assert there.lease(lease.id).state == "revoked"
    if name == "postgres":
        assert there.roles_of(lease.id) == 0
    nothing_astray(there)


@pytest.mark.parametrize("name", HERE)
def test_openbao_full_disk_while_ending(house: House, there: World, name: str) -> None:
    one = guest(there, name)
    handed = again(there, one)
    revoke(there, handed.lease.id)
    with house.full_disk():
        there.sweep()
        lease = there.lease(handed.lease.id)
        if lease.state == "revoked":
            assert not one.opens(handed.values)
    there.wait_sweeping(handed.lease.id, "revoked", seconds=30)
    assert not one.opens(handed.values)


def made_at_backend(lines: list[bytes]) -> tuple[bytes, bytes]:
    """Of the audit file: the request to a backend and its answer, the first after the child token was made."""
    about = [line for line in lines if b'"auth/token/create' not in line and b'"auth/approle' not in line]
    return about[0], about[1]


def after_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], None]) -> None:
    """Let something happen once a function has returned, the first time only."""
    monkeypatch.setattr(owner, name, getattr(owner, name))
    done: list[bool] = []

    def first() -> None:
        if not done:
            done.append(True)
            act()

    steps.after(owner, name, first)
