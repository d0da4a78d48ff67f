"""What tests of faults hold a broker to: a reason in time, what is on record, and that all of it ends."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
from sqlalchemy import select

from broker.leases import reconciling
from broker.models import Lease
from tests.faults.guests import Guest
from tests.support.world import World

# Promise 3.
MOST_SECONDS = 5.0


def ask(url: str, one: Guest, *, lifetime: int = 60) -> httpx.Response:
    """Ask a replica for a credential; within five seconds there is an answer, and if it is no, a reason."""
    began = time.monotonic()
    with httpx.Client(base_url=f"{url}/api/v1", headers=one.signed.headers, timeout=20, trust_env=False) as client:
        answer = client.post("/leases", json=one.body(lifetime=lifetime))
    took = time.monotonic() - began
    assert took < MOST_SECONDS, f"{took:.1f} s"
    return check_reason(answer)


def check_reason(answer: httpx.Response) -> httpx.Response:
    """Whatever is not granted is refused with what is down and what to do, and with no text of a backend."""
    if answer.is_success:
        return answer
    said = answer.json()
    assert answer.status_code == 503, said
    assert answer.headers["content-type"] == "application/problem+json"
    assert said["code"] == "backend_down" and said["detail"] and said["advice"], said
    assert "canary" not in answer.text
    return answer


def again(call: Callable[[], httpx.Response], *, seconds: float = 15) -> httpx.Response:
    """Until it works, by itself."""
    end = time.monotonic() + seconds
    while not (answer := call()).is_success:
        assert time.monotonic() < end, answer.text
        time.sleep(0.3)
    return answer


def story_of(world: World, lease_id: str) -> list[str]:
    """What happened to a lease, whatever its guard told of its use."""
    return [kind for kind in world.events(lease_id) if kind != "lease.used"]


def nothing_astray(world: World) -> None:
    """No backend shows a handle that no living lease accounts for."""
    assert reconciling.reconcile(world.ender).strays == []


def gone(goes_on: Callable[[], bool], within: float) -> float:
    """Wait until what is open goes on no longer; after how many seconds that was, at most as many as allowed."""
    began = time.monotonic()
    while goes_on():
        assert time.monotonic() - began < within, f"it goes on after {within} s"
        time.sleep(0.1)
    return time.monotonic() - began


def leases_of(world: World, one: Guest) -> list[Lease]:
    """What is on record for a guest."""
    with world.database.transaction() as tx:
        return list(tx.scalars(select(Lease).where(Lease.grant_id == one.grant.id)))


def settle(world: World, one: Guest) -> list[Lease]:
    """Let the worker do what it does once the deadline of what is pending has passed, and every life is over."""
    for lease in leases_of(world, one):
        world.change(Lease, lease.id, deadline=world.now(), expires_at=world.now())
    end = time.monotonic() + 30
    while any(lease.ended_at is None for lease in leases_of(world, one)):
        assert time.monotonic() < end, [(lease.state, lease.last_error) for lease in leases_of(world, one)]
        world.sweep()
        time.sleep(0.1)
    ended = leases_of(world, one)
    assert all(lease.confirmed_by for lease in ended)
    return ended
