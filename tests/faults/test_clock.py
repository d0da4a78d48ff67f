"""The clock of a replica or of a worker, stepped while it runs: PostgreSQL's clock is the one that counts."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from datetime import datetime

import httpx
import pytest

from broker.credentials import kinds
from tests.faults.guests import guest
from tests.faults.holding import ask, settle
from tests.faults.processes import Launcher
from tests.support.world import World

HOUR, DAY = 3600.0, 86400.0
LIFETIME = 3


def ready(url: str) -> httpx.Response:
    # The answer before is kept for a second.
    time.sleep(1.1)
    return httpx.get(f"{url}/readyz", timeout=20, trust_env=False)


def check_replica(world: World, launcher: Launcher, seconds: float, *, names: Iterable[str] = kinds) -> None:
    replica = launcher.serve(clock=seconds)
    assert ready(replica.url).status_code == 200
    issued = {}
    replica.signal(signal.SIGUSR1)
    for name in names:
        one = guest(world, name)
        answer = ask(replica.url, one, lifetime=60)
        assert answer.status_code == 201, "it decides by PostgreSQL's clock"
        until = datetime.fromisoformat(answer.json()["lease"]["expires_at"])
        assert 55 < (until - world.now()).total_seconds() <= 60, f"{name}: no longer and no shorter"
        assert one.opens(answer.json()["credential"])
        if kinds[name].renewable:
            with replica.client(one.signed) as client:
                renewed = client.post(f"/leases/{answer.json()['lease']['id']}/renew", json={"lifetime": 120}).json()
            until = datetime.fromisoformat(renewed["expires_at"])
            assert 115 < (until - world.now()).total_seconds() <= 120
        issued[name] = one
    answer = ready(replica.url)
    assert answer.status_code == 503
    assert list(answer.json()["missing"]) == ["clock"] and "differs from PostgreSQL's" in answer.text
    replica.stop()
    for one in issued.values():
        settle(world, one)


def check_worker(world: World, launcher: Launcher, seconds: float) -> None:
    worker = launcher.work(clock=seconds)
    time.sleep(0.5)
    worker.signal(signal.SIGUSR1)
    for name in kinds:
        one, other = guest(world, name), guest(world, name)
        living = one.issue(world, lifetime=300)
        short = world.issue(other.signed, other.dataset, kind=name, lifetime=LIFETIME, **other.asks)
        lease = world.wait_for(short.lease.id, "expired", seconds=LIFETIME + 10)
        assert lease.ended_at is not None
        late = (lease.ended_at - lease.expires_at).total_seconds()
        assert 0 <= late < kinds[name].ending.new_sessions, f"{name}: {late:.1f} s"
        assert world.lease(living.lease.id).state == "active", "not before its time"
        settle(world, one)
    worker.stop()


def test_a_replica_a_day_ahead(world: World, launcher: Launcher) -> None:
    check_replica(world, launcher, DAY, names=["token"])


@pytest.mark.whole
@pytest.mark.parametrize("seconds", [HOUR, -HOUR, DAY, -DAY])
def test_a_replica_whose_clock_is_wrong(world: World, launcher: Launcher, seconds: float) -> None:
    check_replica(world, launcher, seconds)


@pytest.mark.whole
@pytest.mark.parametrize("seconds", [HOUR, -HOUR, DAY, -DAY])
def test_a_worker_whose_clock_is_wrong(world: World, launcher: Launcher, seconds: float) -> None:
    check_worker(world, launcher, seconds)
