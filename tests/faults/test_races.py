"""Two replicas, two workers, one thing: whoever comes first, the outcome is one of those that make sense."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import httpx
import pytest

from broker.base.database import clock
from broker.base.settings import Settings
from broker.kinds.discovery import kinds
from broker.leases import reconciling
from broker.leases.issuing import Handed
from broker.models import Lease
from broker.revocation import ending
from broker.runtime.parts import Parts
from tests.faults.guests import Guest, each_kind, guest
from tests.faults.holding import leases_of, settle, story_of
from tests.faults.processes import Launcher, Process
from tests.support.world import Signed, World

T = TypeVar("T")
ROUNDS = 6
# Servers of their own, which a replica must know of when it starts.
SERVERS = {"mariadb": "ward", "ssh": "sftp"}
RENEWABLE = sorted(name for name, kind in kinds.items() if kind.renewable)


@pytest.fixture
def replicas(request: pytest.FixtureRequest, launcher: Launcher) -> Iterator[tuple[Process, Process]]:
    """Two replicas, each a process, which know the servers of the kinds a test is about."""
    params = getattr(request.node, "callspec", None)
    for name, server in SERVERS.items():
        if params is None or params.params.get("name") == name:
            request.getfixturevalue(server)
    with launcher.serve() as one, launcher.serve() as other:
        yield one, other


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Let calls begin at the same moment; what they come to, in their order."""
    barrier = threading.Barrier(len(calls))

    def begin(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


def post(replica: Process, one: Guest, path: str, body: Any, **headers: str) -> httpx.Response:
    with replica.client(one.signed) as client:
        return client.post(path, json=body, headers=headers)


@pytest.mark.parametrize("name", each_kind("postgres"))
def test_idempotency_key_used_at_two_replicas_makes_one_lease(
    world: World, replicas: tuple[Process, Process], name: str
) -> None:
    one = guest(world, name)
    answers = at_once(
        *(
            lambda to=replica: post(to, one, "/leases", one.body(), **{"Idempotency-Key": "once"})
            for replica in replicas
        )
    )
    assert [answer.status_code for answer in answers] == [201, 201]
    assert len({answer.json()["lease"]["id"] for answer in answers}) == 1
    assert sorted(answer.json()["secret_available"] for answer in answers) == [False, True]
    settle(world, one)


def suspend(world: World, signed: Signed, admin: Signed) -> None:
    with world.database.transaction() as tx:
        ending.suspend_person(tx, signed.id, admin.caller, "now", clock(tx))


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(kinds))
def test_issuing_while_the_person_is_suspended(world: World, replicas: tuple[Process, Process], name: str) -> None:
    """Either the gate saw the end, or the end saw the lease."""
    for n in range(ROUNDS):
        one, admin = guest(world, name), world.person(roles=("admin",))
        answer, _ = at_once(
            partial(post, replicas[n % 2], one, "/leases", one.body()), partial(suspend, world, one.signed, admin)
        )
        assert answer is not None
        assert answer.status_code in (201, 401, 403, 409), answer.text
        assert all(lease.state == "revoking" for lease in leases_of(world, one)), "nothing goes on"
        settle(world, one)
        if answer.status_code == 201:
            assert not one.opens(answer.json()["credential"])


@pytest.mark.whole
@pytest.mark.parametrize("name", RENEWABLE)
def test_renewing_while_it_is_revoked(world: World, replicas: tuple[Process, Process], name: str) -> None:
    """A revoked credential is not brought back by the renewal that was under way."""
    for n in range(ROUNDS):
        one = guest(world, name)
        first = post(replicas[0], one, "/leases", one.body(lifetime=60)).json()
        path = f"/leases/{first['lease']['id']}"
        renewed, revoked = at_once(
            partial(post, replicas[n % 2], one, f"{path}/renew", {"lifetime": 900}),
            partial(post, replicas[1 - n % 2], one, f"{path}/revoke", {}),
        )
        assert revoked.status_code == 202
        assert renewed.status_code in (200, 409), renewed.text
        assert world.lease(first["lease"]["id"]).state in ("revoking", "revoked")
        world.wait_sweeping(first["lease"]["id"], "revoked")
        assert not one.opens(first["credential"])
        kinds_of_events = story_of(world, first["lease"]["id"])
        assert kinds_of_events[-1] == "lease.revoked", "nothing happens to it afterwards"


@pytest.fixture
def second_ender(settings: Settings) -> Iterator[Parts]:
    """The parts of another worker."""
    made = Parts.build(settings, identity="ender")
    yield made
    made.close()


@pytest.mark.parametrize("names", [["postgres", "token"], pytest.param(sorted(kinds), marks=pytest.mark.whole)])
def test_two_workers_end_each_lease_once(world: World, second_ender: Parts, names: list[str]) -> None:
    other = World(world.stack, world.settings, world.parts, second_ender)
    ends: list[tuple[Guest, Handed]] = []
    for name in names:
        for _ in range(3):
            one = guest(world, name)
            ends.append(
                (
                    one,
                    one.issue(
                        world,
                    ),
                )
            )
    with world.database.transaction() as tx:
        ids = [handed.lease.id for _, handed in ends]
        ending.mark(tx, Lease.id.in_(ids), cause="revoked", by="system", now=clock(tx))
    while any(lease.ended_at is None for one, _ in ends for lease in leases_of(world, one)):
        at_once(world.sweep, other.sweep)
    for one, handed in ends:
        assert story_of(world, handed.lease.id) == ["lease.issued", "lease.ending", "lease.revoked"], one.kind.name
        assert handed.values is not None and not one.opens(handed.values)


@pytest.mark.whole
@pytest.mark.parametrize("fails", [False, True], ids=["ends it too", "fails"])
@pytest.mark.parametrize("name", sorted(kinds))
def test_worker_with_an_expired_claim_changes_nothing(world: World, launcher: Launcher, name: str, fails: bool) -> None:
    """It hung while it ended a lease; another has finished, and said by what."""
    one = guest(world, name)
    handed = one.issue(
        world,
    )
    order: dict[str, Any] = {"kind": name, "lease": handed.lease.id, "step": "ended at the backend", "claim_seconds": 1}
    with launcher.work(**order, hangs=5, fails=fails):
        with world.database.transaction() as tx:
            ending.mark(tx, Lease.id == handed.lease.id, cause="revoked", by="system", now=clock(tx))
        until(lambda: world.lease(handed.lease.id).claimed_until is not None)
        world.wait_sweeping(handed.lease.id, "revoked")
        as_ended = world.lease(handed.lease.id)
        time.sleep(5.5)
    lease = world.lease(handed.lease.id)
    assert (lease.state, lease.last_error, lease.ended_at) == ("revoked", "", as_ended.ended_at)
    assert story_of(world, handed.lease.id) == ["lease.issued", "lease.ending", "lease.revoked"]


def until(happened: Callable[[], bool], *, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.whole
def test_two_workers_reconcile_while_a_replica_issues(
    world: World, second_ender: Parts, replicas: tuple[Process, Process]
) -> None:
    """What is being made meanwhile is never mistaken for what nobody recorded; what nobody recorded ends."""
    stray = f"l{'0' * 24}r1"
    with world.admin() as admin:
        admin.execute(f"SET ROLE guestkey_minter; CREATE ROLE gk_{world.parts.tag}_{stray} LOGIN")
    guests = [guest(world, name) for name in sorted(kinds) for _ in range(4)]
    stop = threading.Event()

    def in_a_loop(parts: Parts) -> Sequence[reconciling.BackendOutcome]:
        found = []
        while not stop.is_set():
            found += reconciling.reconcile(parts).strays
        return found

    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(in_a_loop, parts) for parts in (world.ender, second_ender)]
        try:
            answers = [post(replicas[n % 2], one, "/leases", one.body()) for n, one in enumerate(guests)]
        finally:
            stop.set()
        strays = {found.lease for one in under_way for found in one.result(30)}
    assert strays == {stray}
    assert world.roles_of(stray) == 0
    assert "lease.stray_ended" in world.events(stray)
    for one, answer in zip(guests, answers, strict=True):
        assert answer.status_code == 201
        assert [lease.state for lease in leases_of(world, one)] == ["active"], one.kind.name
        assert one.opens(answer.json()["credential"]), one.kind.name
        settle(world, one)
