"""Several workers at slices that wait: each is one worker's at a time, and nobody's for long when that one dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault
from broker.kinds.postgres.kind import PostgresKind
from broker.kinds.values import BoundSlice
from broker.models import Slice
from broker.runtime.parts import Parts, vault_of
from broker.worker import slice_registration
from broker.worker.worker import Worker
from tests.credentials.test_postgres_slices import traces
from tests.support.registering import register_waiting
from tests.support.world import DEIDENTIFIED, World

Registers = Callable[[PostgresKind, Vault, str, BoundSlice], int | None]


@pytest.fixture
def another(world: World) -> Iterator[Parts]:
    """The parts of a second worker."""
    made = Parts.build(world.settings, identity="ender")
    yield made
    made.close()


def waiting(world: World, count: int = 1) -> list[str]:
    """Slices that nobody has registered yet."""
    dataset = world.dataset(register=False, slices={f"part{number}": DEIDENTIFIED for number in range(count)})
    with world.database.transaction() as tx:
        return list(tx.scalars(select(Slice.id).where(Slice.dataset_id == dataset.id)))


def found(world: World, slice_id: str) -> Slice:
    """A slice as it is recorded."""
    with world.database.transaction() as tx:
        return tx.get_one(Slice, slice_id)


def test_slice_claimed_by_one_worker_is_not_registered_by_another(
    world: World, another: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    at_once: list[int] = []
    inside: set[int] = set()
    register: Registers = PostgresKind.register

    def counting(kind: PostgresKind, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        inside.add(threading.get_ident())
        seen.append(slice_id)
        # Long enough for the other to come by.
        time.sleep(0.3)
        at_once.append(len(inside))
        try:
            return register(kind, setup, slice_id, bound)
        finally:
            inside.discard(threading.get_ident())

    monkeypatch.setattr(PostgresKind, "register", counting)
    ids = waiting(world, 6)
    workers = [Worker(one, vault_of(world.settings, "setup")) for one in (world.ender, another)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 30
    while {found(world, id_).state for id_ in ids} != {"ready"} and time.monotonic() < end:
        time.sleep(0.1)
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join(30)
    assert sorted(id_ for id_ in seen if id_ in ids) == sorted(ids)
    assert max(at_once) == 1, "in one database one after the other: what is granted there at once collides"
    for id_ in ids:
        slice_ = found(world, id_)
        assert (slice_.state, slice_.claimed_until, traces(world, id_)) == ("ready", None, 2)
        assert world.events(id_).count("slice.ready") == 1


def test_expired_claim_of_a_dead_worker_is_taken_over(world: World) -> None:
    setup, (id_,) = vault_of(world.settings, "setup"), waiting(world)
    for state, until in (("registering", world.now() + slice_registration.CLAIM), ("ready", world.now())):
        world.change(Slice, id_, claimed_until=until)
        slice_registration.register_waiting(world.ender, setup)
        assert found(world, id_).state == state


def test_slice_with_a_down_backend_is_released_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, (id_,) = vault_of(world.settings, "setup"), waiting(world)
    for error in (BackendDown("It does not answer.", backend="postgresql"), KeyError("columns")):

        def fails(
            _kind: PostgresKind, _setup: Vault, slice_id: str, _bound: BoundSlice, error: Exception = error
        ) -> None:
            assert slice_id != id_ or found(world, id_).claimed_until
            raise error

        monkeypatch.setattr(PostgresKind, "register", fails)
        slice_registration.register_waiting(world.ender, setup)
        assert (found(world, id_).state, found(world, id_).claimed_until) == ("registering", None)
    monkeypatch.undo()
    slice_registration.register_waiting(world.ender, setup)
    assert found(world, id_).state == "ready"


def test_many_slices_with_a_down_backend_do_not_delay_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One try tells it: each of the others there would cost a timeout, and those elsewhere their turn."""
    register_waiting(world)
    ids, tried = waiting(world, 25), []
    register: Registers = PostgresKind.register
    with world.database.transaction() as tx:
        for id_ in ids[1:]:
            tx.get_one(Slice, id_).binding = DEIDENTIFIED | {"connection": "far"}

    def fails(kind: PostgresKind, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        if bound.connection != "far":
            return register(kind, setup, slice_id, bound)
        tried.append(slice_id)
        raise BackendDown("It does not answer.", backend="postgresql")

    monkeypatch.setattr(PostgresKind, "register", fails)
    slice_registration.register_waiting(world.ender, vault_of(world.settings, "setup"))
    assert (found(world, ids[0]).state, len(tried)) == ("ready", 1)
    for id_ in ids:
        world.change(Slice, id_, state="retired", state_detail=slice_registration.REMOVED)


def test_slice_retired_during_registration_is_removed_afterwards(
    world: World, another: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, (id_,) = vault_of(world.settings, "setup"), waiting(world)
    register: Registers = PostgresKind.register

    def overtaken(kind: PostgresKind, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        if slice_id == id_:
            world.change(Slice, id_, state="retired")
            slice_registration.remove_retired(another, setup)
            assert found(world, id_).state_detail != slice_registration.REMOVED
        return register(kind, setup, slice_id, bound)

    monkeypatch.setattr(PostgresKind, "register", overtaken)
    slice_registration.register_waiting(world.ender, setup)
    assert traces(world, id_) == 2 and "slice.ready" not in world.events(id_)
    assert slice_registration.remove_retired(world.ender, setup) >= 1
    assert traces(world, id_) == 0 and world.events(id_).count("slice.removed") == 1
