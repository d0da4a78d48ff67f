"""The clock of a replica or of a worker, stepped while it runs: PostgreSQL's clock is the one that counts."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from datetime import datetime

import httpx
import pytest

from broker.kinds.discovery import kinds
from tests.faults.guests import Guest, guest
from tests.faults.holding import ask, settle
from tests.faults.processes import Launcher, Process
from tests.support.world import World

HOUR, DAY = 3600.0, 86400.0
LIFETIME = 3
# Object stores refuse whoever signs a request with a time of which theirs differs by a quarter of an hour.
SIGNED_BY_TIME = {"s3"}


def ready(url: str) -> httpx.Response:
    # The answer before is kept for a second.
    time.sleep(1.1)
    return httpx.get(f"{url}/readyz", timeout=20, trust_env=False)


def check_replica(world: World, launcher: Launcher, name: str, seconds: float) -> None:
    one = guest(world, name)
    with launcher.serve(clock=seconds) as replica:
        assert ready(replica.url).status_code == 200
        replica.signal(signal.SIGUSR1)
        answer = ask(replica.url, one, lifetime=60)
        if name in SIGNED_BY_TIME:
            assert answer.status_code == 503, "the store itself refuses whoever signs with another time"
        else:
            check_lifetime(world, replica, one, answer)
        answer = ready(replica.url)
        assert answer.status_code == 503
        assert list(answer.json()["missing"]) == ["clock"] and "differs from PostgreSQL's" in answer.text
    settle(world, one)


def check_lifetime(world: World, replica: Process, one: Guest, answer: httpx.Response) -> None:
    """No longer and no shorter than asked for, by PostgreSQL's clock."""
    assert answer.status_code == 201, answer.text
    lease = answer.json()["lease"]
    assert 50 < left(world, lease) <= 60
    assert one.opens(answer.json()["credential"])
    if one.kind.renewable:
        with replica.client(one.signed) as client:
            assert 110 < left(world, client.post(f"/leases/{lease['id']}/renew", json={"lifetime": 120}).json()) <= 120


def left(world: World, lease: Mapping[str, str]) -> float:
    return (datetime.fromisoformat(lease["expires_at"]) - world.now()).total_seconds()


def check_worker(world: World, launcher: Launcher, name: str, seconds: float) -> None:
    one, other = guest(world, name), guest(world, name)
    living = one.issue(world, lifetime=300)
    with launcher.work(clock=seconds) as worker:
        time.sleep(0.5)
        worker.signal(signal.SIGUSR1)
        short = other.issue(world, lifetime=LIFETIME)
        over = "revoke_failed" if name in SIGNED_BY_TIME else "expired"
        lease = world.wait_for(short.lease.id, over, seconds=LIFETIME + 15)
        if lease.ended_at is not None:
            late = (lease.ended_at - lease.expires_at).total_seconds()
            assert 0 <= late < kinds[name].ending.new_sessions, f"{late:.1f} s"
        assert world.lease(living.lease.id).state == "active", "not before its time"
    world.wait_sweeping(short.lease.id, "expired")
    assert short.values is not None and not other.opens(short.values)
    settle(world, one)


def test_replica_a_day_ahead_reports_not_ready(world: World, launcher: Launcher) -> None:
    check_replica(world, launcher, "token", DAY)


@pytest.mark.whole
@pytest.mark.parametrize("seconds", [HOUR, -HOUR, DAY, -DAY])
@pytest.mark.parametrize("name", sorted(kinds))
def test_wrong_replica_clock_does_not_change_lifetimes(
    world: World, launcher: Launcher, name: str, seconds: float
) -> None:
    check_replica(world, launcher, name, seconds)


@pytest.mark.whole
@pytest.mark.parametrize("seconds", [HOUR, -HOUR, DAY, -DAY])
@pytest.mark.parametrize("name", sorted(kinds))
def test_wrong_worker_clock_does_not_change_ending(world: World, launcher: Launcher, name: str, seconds: float) -> None:
    check_worker(world, launcher, name, seconds)
