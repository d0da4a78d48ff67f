"""Ending goes on for ever: what a backend does not let go of is tried again, alarmed once, and gone in the end."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text

from broker.base.errors import Invalid
from broker.embedded.children import free_port
from broker.embedded.openbao import Operator
from broker.keystore.vault import Vault
from broker.kinds.discovery import kinds
from broker.kinds.names import user_of
from broker.kinds.postgres.kind import PostgresKind
from broker.kinds.values import BoundSlice, Exposed, LeaseToEnd
from broker.leases import sweeping
from broker.leases.sweeping import SLOWEST_RETRY
from broker.models import Lease, Notice, Slice
from broker.runtime import chores
from broker.runtime.parts import Parts
from broker.worker.worker import Worker
from tests.support.registering import register_waiting
from tests.support.world import CLINIC, DEIDENTIFIED, World

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
    operator.set_login_url(place, "watch", there.replace(f":{world.stack.ports.postgres}/", f":{free_port()}/"))
    world.change(Slice, lease.slice_id, binding={**CLINIC, "connection": place})
    try:
        yield
    finally:
        operator.set_login_url(place, "watch", there)


@contextmanager
def silent(world: World, lease: Lease) -> Iterator[None]:
    """The lease's database takes connections and says nothing."""
    place, operator = f"mute-{secrets.token_hex(4)}", Operator(world.stack.bao)
    there = world.stack.postgres.url("watch", "data")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        port = mute.getsockname()[1]
        operator.set_login_url(place, "watch", there.replace(f":{world.stack.ports.postgres}/", f":{port}/"))
        world.change(Slice, lease.slice_id, binding={**CLINIC, "connection": place})
        yield
    operator.set_login_url(place, "watch", there)


def due(world: World, chore: str) -> datetime:
    """When the next round of some recurring work is due; long ago if there was none yet."""
    with world.database.transaction() as tx:
        at = tx.execute(text("SELECT max(due_at) FROM guestkey.chore WHERE name = :name"), {"name": chore}).scalar()
    return at or datetime.min.replace(tzinfo=UTC)


def wait_until(so: Callable[[], bool]) -> None:
    """Wait ten seconds at the most."""
    end = time.monotonic() + 10
    while not so():
        assert time.monotonic() < end
        time.sleep(0.02)


def attempt(world: World, lease_id: str) -> Lease:
    """One more attempt, now; returns what became of it."""
    world.change(Lease, lease_id, next_attempt_at=world.now(), claimed_until=None)
    world.sweep()
    return world.lease(lease_id)


@pytest.mark.parametrize("obstacle", [owning, unreachable])
def test_ending_is_retried_after_openbao_gives_up(world: World, obstacle: Obstacle) -> None:
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
def test_hanging_backend_does_not_delay_ending_elsewhere(world: World) -> None:
    signed, dataset, _ = world.guest()
    hanging = world.issue(signed, dataset).lease
    other, hers, _ = world.guest()
    lives = [world.issue(other, hers).lease for _ in range(2)]
    with silent(world, hanging):
        world.change(Lease, hanging.id, expires_at=world.now())
        # What is declared for each, after the worker's next look.
        most = kinds["postgres"].ending.open_sessions + world.settings.sweep_interval
        for lease in lives:
            world.change(Lease, lease.id, expires_at=world.now())
            world.wait_for(lease.id, "expired", seconds=most)
        world.wait_for(hanging.id, "revoke_failed", seconds=20)
    world.change(Lease, hanging.id, next_attempt_at=world.now())
    world.wait_for(hanging.id, "expired")


def test_listing_hanging_backends_does_not_delay_ending(world: World) -> None:
    """Reconciling asks one after the other; meanwhile credentials elsewhere end as fast as ever."""
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    guests = [world.guest() for _ in range(3)]
    parts = Parts.build(world.settings, identity="ender")
    worker = Worker(parts, None)
    thread = threading.Thread(target=worker.run)
    with ExitStack() as hanging:
        for who, where, _ in guests:
            hanging.enter_context(silent(world, world.issue(who, where).lease))
        with world.database.transaction() as tx:
            chores.at_once(tx, chores.RECONCILE)
        began = world.now()
        thread.start()
        try:
            wait_until(lambda: due(world, chores.RECONCILE) > began + timedelta(seconds=1))
            world.change(Lease, lease.id, expires_at=world.now())
            world.wait_for(lease.id, "expired", seconds=4)
            assert not worker._background[chores.RECONCILE].done(), "it is still at it"
        finally:
            worker.stop()
            thread.join(40)
            parts.close()


@pytest.mark.parametrize("broken", ["together", "alone"])
def test_unexpected_error_while_ending_is_recorded_and_does_not_stop_others(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A binding that a newer release refuses, a fault of ours: nobody would hear of it, and the lease would live."""
    signed, dataset, _ = world.guest()
    odd, other = (world.issue(signed, dataset).lease for _ in range(2))
    real = PostgresKind.end_many

    def end_many(kind: PostgresKind, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        if len(leases) > 1:
            raise KeyError("connection")
        if leases[0].id == odd.id and broken == "alone":
            raise Invalid("There is no such column.")
        return real(kind, vault, leases)

    monkeypatch.setattr(PostgresKind, "end_many", end_many)
    for lease in (odd, other):
        world.change(Lease, lease.id, expires_at=world.now())
    world.sweep()
    assert world.lease(other.id).state == "expired"
    found = world.lease(odd.id)
    if broken == "together":
        assert found.state == "expired"
        return
    assert (found.state, found.attempts) == ("revoke_failed", 1)
    assert "Invalid" in found.last_error and found.next_attempt_at
    assert world.events(odd.id).count("lease.revoke_failed") == 1
    monkeypatch.undo()
    assert attempt(world, odd.id).state == "expired"


def test_exposed_lease_is_retried_at_the_time_its_backend_gave(world: World) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(Lease, lease.id, state="revoking", next_attempt_at=world.now() + timedelta(hours=1))
    until, again = world.now() + timedelta(minutes=40), world.now() + timedelta(minutes=5)
    sweeping.record_outcomes(world.ender, [lease], {lease.id: Exposed(until, "no room", again=again)})
    found = world.lease(lease.id)
    assert (found.state, found.exposed_until, found.next_attempt_at) == ("revoking", until, again)
    assert attempt(world, lease.id).state == "revoked"


def test_expired_lease_is_not_reported_as_exposed(world: World) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(Lease, lease.id, expires_at=world.now())
    world.sweep()
    sweeping.record_outcomes(
        world.ender, [lease], {lease.id: Exposed(lease.expires_at, "said by another worker, late")}
    )
    assert world.lease(lease.id).state == "expired"
    assert "lease.exposed" not in world.events(lease.id)


def test_failing_slice_does_not_delay_other_slices(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = world.dataset(register=False, slices={"deidentified": DEIDENTIFIED, "odd": CLINIC})
    with world.database.transaction() as tx:
        odd = tx.scalars(select(Slice.id).where(Slice.dataset_id == dataset.id, Slice.name == "odd")).one()
    register = PostgresKind.register

    def registered(kind: PostgresKind, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        if slice_id == odd:
            raise KeyError("columns")
        return register(kind, setup, slice_id, bound)

    monkeypatch.setattr(PostgresKind, "register", registered)
    for _ in range(2):
        register_waiting(world)
    with world.database.transaction() as tx:
        states = dict(tx.execute(select(Slice.name, Slice.state).where(Slice.dataset_id == dataset.id)).all())
    assert states == {"deidentified": "ready", "odd": "registering"}
    world.change(Slice, odd, state="retired")


def test_worker_with_an_expired_claim_does_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker may be at them by then."""
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(Lease, lease.id, expires_at=world.now())
    monkeypatch.setattr(sweeping, "CLAIM_SECONDS", 0)
    world.sweep()
    assert (world.lease(lease.id).state, world.roles_of(lease.id)) == ("revoking", 1)
    monkeypatch.undo()
    world.wait_sweeping(lease.id, "expired")


def test_each_lease_is_ended_by_one_of_several_workers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
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
