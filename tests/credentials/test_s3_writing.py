"""Many write one bucket's policy: hands of a worker, workers, connections. No refusal is lost, whoever dies in it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from broker.base.errors import BackendDown
from broker.kinds.s3 import ending as s3_ending
from broker.kinds.s3.binding import denied_in, lapses
from broker.kinds.s3.ending import CONFIRMED, BucketPolicy, lock_path
from broker.kinds.s3.store import Store, key_of
from broker.runtime.parts import vault_of
from tests.credentials.test_s3_ending import KIND, issued, policy, to_end
from tests.support.data import BUCKET
from tests.support.objects import readable
from tests.support.world import PICTURES as BINDING
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("bare")


def mark(world: World) -> str:
    """Where the bucket's mark is."""
    return lock_path(world.stack.store.address, BUCKET)


def bucket_policy(world: World, connection: str = "objects") -> BucketPolicy:
    """The bucket's policy, as a worker writes it."""
    place = world.settings.place("s3", BINDING)
    vault = vault_of(world.settings, "ender")
    return BucketPolicy(Store(place, key_of(vault, "objects", "ender")), vault, connection, BUCKET, "aws:username", 0.5)


def test_concurrent_policy_writes_of_one_worker_lose_nothing(world: World) -> None:
    sessions = [issued(world) for _ in range(24)]
    with ThreadPoolExecutor(8) as pool:
        confirmed = pool.map(lambda of: KIND.end(world.ender.vault, to_end(*of)), sessions)
        assert set(confirmed) == {CONFIRMED}
    assert denied_in(json.dumps(policy(world))).keys() == {lease.handle for lease, _ in sessions}
    assert not any(readable(session.values) for _, session in sessions)


def test_concurrent_policy_writes_of_many_workers_lose_nothing(world: World) -> None:
    """Each writes for itself, as processes do, two of them by another connection to the same bucket: only the mark in
    the key store stands between them."""
    policies, until = (
        [bucket_policy(world, name) for name in ("objects", "pictures") * 2],
        datetime.now(UTC) + timedelta(minutes=30),
    )
    handles = [f"{world.parts.tag}-worker{number}" for number in range(16)]

    def write(number: int) -> None:
        while True:
            try:
                assert not policies[number % 4]._write_all({handles[number]: lapses(until.timestamp())})
                return
            except BackendDown:
                time.sleep(0.05)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(len(handles))))
    assert denied_in(json.dumps(policy(world))).keys() == set(handles)


def test_policy_lock_of_a_dead_worker_is_taken_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_ending, "_LEFT_SECONDS", 0.5)
    vault = world.ender.vault
    _, version = vault.entry(mark(world))
    assert vault.keep_if(mark(world), {"holder": "dead"}, version)
    lease, session = issued(world)
    assert KIND.end(vault, to_end(lease, session)) == CONFIRMED


def test_policy_lock_held_by_another_worker_is_respected(world: World) -> None:
    vault = world.ender.vault
    _, version = vault.entry(mark(world))
    assert vault.keep_if(mark(world), {"holder": "busy"}, version)
    lease, session = issued(world)
    try:
        with pytest.raises(BackendDown, match="Another worker"):
            KIND.end(vault, to_end(lease, session))
    finally:
        assert vault.keep_if(mark(world), {"holder": ""}, version + 1)
    assert readable(session.values)
