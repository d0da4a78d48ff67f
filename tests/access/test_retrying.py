"""Ending goes on for ever: what a backend does not let go of is tried again, alarmed once, and gone in the end."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest
from sqlalchemy import func, select

from broker.access import sweeping
from broker.access.outcomes import SLOWEST_RETRY
from broker.access.working import Worker
from broker.credentials.base import LeaseToEnd
from broker.credentials.names import user_of
from broker.credentials.postgres import PostgresKind
from broker.embedded.children import free_port
from broker.embedded.operator import Operator
from broker.models import Lease, Notice, Slice
from broker.parts import Parts
from broker.vault import Vault
from tests.support.world import CLINIC, World

Obstacle = Callable[[World, Lease], AbstractContextManager[None]]
# OpenBao gives up after six.
ATTEMPTS = 9


@contextmanager
def owning(world: World, lease: Lease) -> Iterator[None]:
    """The lease's user owns a table in another database: nobody can drop it from here."""
    table = f"owned_{secrets.token_hex(4)}"
    with world.admin("postgres") as admin:
        admin.execute(
            f'CREATE TABLE public.{table} (x int); ALTER TABLE public.{table} OWNER TO "{user_of(lease.handle)}"'
        )
    try:
        yield
    finally:
        with world.admin("postgres") as admin:
            admin.execute(f"DROP TABLE public.{table}")


@contextmanager
def unreachable(world: World, lease: Lease) -> Iterator[None]:
    """The worker's way to the lease's database leads nowhere for a while."""
    place, operator = f"away-{secrets.token_hex(4)}", Operator(world.stack.bao)
    there = world.stack.postgres.url("watch", "data")
    operator.let_in(place, "watch", there.replace(f":{world.stack.ports.postgres}/", f":{free_port()}/"))
    world.change(Slice, lease.slice_id, binding={**CLINIC, "connection": place})
    try:
        yield
    finally:
        operator.let_in(place, "watch", there)


@contextmanager
def silent(world: World, lease: Lease) -> Iterator[None]:
    """The lease's database takes connections and says nothing."""
    place, operator = f"mute-{secrets.token_hex(4)}", Operator(world.stack.bao)
    there = world.stack.postgres.url("watch", "data")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        port = mute.getsockname()[1]
        operator.let_in(place, "watch", there.replace(f":{world.stack.ports.postgres}/", f":{port}/"))
        world.change(Slice, lease.slice_id, binding={**CLINIC, "connection": place})
        yield
    operator.let_in(place, "watch", there)


def attempt(world: World, lease_id: str) -> Lease:
    """One more attempt, now; returns what became of it."""
    world.change(Lease, lease_id, next_attempt_at=world.now(), claimed_until=None)
    world.sweep()
    return world.lease(lease_id)


@pytest.mark.parametrize("obstacle", [owning, unreachable])
def test_it_is_tried_beyond_where_openbao_gives_up_and_ends_when_it_can(world: World, obstacle: Obstacle) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(Lease, lease.id, expires_at=world.now())
    waits = []
    with obstacle(world, lease):
        for number in range(1, ATTEMPTS + 1):
            found = attempt(world, lease.id)
            assert (found.state, found.attempts) == ("revoke_failed", number)
            assert found.last_error.startswith("PostgreSQL") and found.next_attempt_at
            waits.append(round((found.next_attempt_at - world.now()).total_seconds()))
    assert waits == sorted(waits) and waits[0] <= 1, "backed off"
    assert SLOWEST_RETRY - 2 < waits[-1] <= SLOWEST_RETRY, "and never given up"
    assert world.events(lease.id).count("lease.revoke_failed") == 1, "one alarm, not one an attempt"
    with world.database.transaction() as tx:
        told = select(func.count()).select_from(Notice).where(Notice.subject == lease.id)
        assert tx.execute(told.where(Notice.kind == "lease.revoke_failed")).scalar_one() == 1
    ended = attempt(world, lease.id)
    assert (ended.state, ended.last_error) == ("expired", "")
    assert world.roles_of(lease.id) == 0


@pytest.mark.usefixtures("worker")
def test_a_place_that_hangs_keeps_no_other_place_waiting(world: World) -> None:
    signed, dataset, _ = world.guest()
    hanging = world.issue(signed, dataset).lease
    other, hers, _ = world.guest()
    lives = [world.issue(other, hers).lease for _ in range(2)]
    with silent(world, hanging):
        for lease in (hanging, lives[0]):
            world.change(Lease, lease.id, expires_at=world.now())
        began = time.monotonic()
        world.wait_for(lives[0].id, "expired")
        world.change(Lease, lives[1].id, expires_at=world.now())
        world.wait_for(lives[1].id, "expired", seconds=12)
        assert time.monotonic() - began < 12
        world.wait_for(hanging.id, "revoke_failed", seconds=20)
    world.change(Lease, hanging.id, next_attempt_at=world.now())
    world.wait_for(hanging.id, "expired")


def test_whose_claim_has_run_out_does_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker may be at them by then."""
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(Lease, lease.id, expires_at=world.now())
    monkeypatch.setattr(sweeping, "CLAIM_SECONDS", 0)
    world.sweep()
    assert (world.lease(lease.id).state, world.roles_of(lease.id)) == ("revoking", 1)
    monkeypatch.undo()
    world.wait_sweeping(lease.id, "expired")


def test_no_worker_does_anothers_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers at forty leases: each lease reaches its backend once."""
    people = [world.guest() for _ in range(8)]
    ids = [world.issue(signed, dataset).lease.id for signed, dataset, _ in people for _ in range(5)]
    seen: list[str] = []
    end_many = PostgresKind.end_many

    def counting(kind: PostgresKind, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        seen.extend(lease.id for lease in leases)
        return end_many(kind, vault, leases)

    monkeypatch.setattr(PostgresKind, "end_many", counting)
    monkeypatch.setattr(sweeping, "BATCH", 7)
    parts = [Parts.build(world.settings, identity="ender") for _ in range(3)]
    workers = [Worker(one, None) for one in parts]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for id_ in ids:
        world.change(Lease, id_, expires_at=world.now())
    for thread in threads:
        thread.start()
    for id_ in ids:
        world.wait_for(id_, "expired", seconds=20)
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join(30)
    for one in parts:
        one.close()
    mine = [id_ for id_ in seen if id_ in ids]
    assert sorted(mine) == sorted(ids)
    assert all(world.events(id_).count("lease.expired") == 1 for id_ in ids)
