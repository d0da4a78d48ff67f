"""Promise 2, the issuer's half: a broker killed at any step leaves nothing behind that lives on or is unaccounted for.

Each round starts a broker of its own, asks it for a credential over HTTP, and has the process killed by SIGKILL at one
of the steps of docs/issuance.md. What had been made by then is tried as a thief would try it.
"""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import httpx
import pytest
from sqlalchemy import select

from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.models import Event, Lease
from broker.worker.worker import Worker
from tests.faults.guests import Guest, each_kind, guest
from tests.faults.holding import nothing_astray, story_of
from tests.faults.processes import Launcher, Process
from tests.faults.steps import issuing_steps
from tests.support.world import World

# Long enough to log in with what was made, wherever that takes a second.
LIFETIME = 8
SHORT_LIFETIME = 4
# The short form: the two steps after which something lives that nobody was told of.
SHORT = ("6 made", "7 committed")


@dataclass(frozen=True)
class Killed:
    """A broker that died while it issued, and for whom."""

    guest: Guest
    process: Process
    at: float


def kill(world: World, launcher: Launcher, lifetime: int, guest: Guest, step: str) -> Killed:
    """Ask a broker of its own for a credential and let it die at a step; look at what that leaves at once."""
    process = launcher.serve(kind=guest.kind.name, step=step)
    with process.client(guest.signed) as client, pytest.raises(httpx.TransportError):
        # Not even half an answer: a status line would be a promise.
        client.post("/leases", json=guest.body(lifetime=lifetime))
    at = time.monotonic()
    process.killed()
    killed = Killed(guest, process, at)
    check_right_after(world, killed, step)
    return killed


def leases_of(world: World, guest: Guest) -> list[Lease]:
    with world.database.transaction() as tx:
        return list(tx.scalars(select(Lease).where(Lease.grant_id == guest.grant.id)))


def decisions_about(world: World, guest: Guest) -> list[str]:
    with world.database.transaction() as tx:
        query = select(Event.id).where(Event.subject == guest.dataset.id, Event.kind == "decision.allowed")
        return [str(found) for found in tx.scalars(query)]


def recorded_state(kind: Kind, step: str) -> str | None:
    """The state in which a broker that dies at a step leaves the lease; None: there is none."""
    if step < "4 c" or step == "4 lease inserted":
        return None
    handed_over = step >= "7 c" and step != "7 inserted"
    return "active" if handed_over or not kind.at_backend else "pending"


def check_right_after(world: World, killed: Killed, step: str) -> None:
    kind = killed.guest.kind
    leases = leases_of(world, killed.guest)
    assert [lease.state for lease in leases] == [state for state in [recorded_state(kind, step)] if state], step
    decisions = decisions_about(world, killed.guest)
    assert decisions == [lease.decision_id for lease in leases], f"{step}: no lease without its decision"
    values = killed.process.leaked()
    if step >= "6 m":
        live = recorded_state(kind, step) == "active" or not killed.guest.asked_about
        assert values is not None and killed.guest.opens(values) == live, f"{step}: there was something to take back"
    elif step != "6 being made":
        assert values is None, f"{step}: nothing was made before it was on record"


def check_in_the_end(world: World, killed: Killed, step: str, took: float) -> None:
    kind = killed.guest.kind
    for lease in leases_of(world, killed.guest):
        assert lease.state == ("expired" if lease.activated_at else "revoked"), step
        assert lease.confirmed_by
        issued = ["lease.issued"] if lease.activated_at else []
        assert story_of(world, lease.id) == [*issued, "lease.ending", f"lease.{lease.state}"], step
    values = killed.process.leaked()
    if values is not None:
        assert not killed.guest.opens(values), f"{step}: it lives on"
    # Its life was cut short by its own lease; past that, what the kind declares for a broker that is gone.
    assert kind.ending.worst_case is None or took < LIFETIME + kind.ending.worst_case, step


def until_over(world: World, killed: Killed, seconds: float = 30) -> float:
    """Wait until nothing of a guest's lives on record; how long after the kill that was."""
    while any(lease.ended_at is None for lease in leases_of(world, killed.guest)):
        assert time.monotonic() < killed.at + seconds, [lease.state for lease in leases_of(world, killed.guest)]
        time.sleep(0.1)
    return time.monotonic() - killed.at


def die_at(world: World, launcher: Launcher, name: str, steps: list[str], *, lifetime: int = LIFETIME) -> None:
    guests = [guest(world, name) for _ in steps]
    rounds = dict(zip(steps, map(partial(kill, world, launcher, lifetime), guests, steps), strict=True))
    for step, killed in rounds.items():
        check_in_the_end(world, killed, step, until_over(world, killed))
    nothing_astray(world)


@pytest.mark.parametrize("name", each_kind("postgres"))
def test_undelivered_credential_of_a_killed_replica_ends(
    world: World, launcher: Launcher, name: str, worker: Worker
) -> None:
    steps = [step for step in issuing_steps(kinds[name]) if step in SHORT]
    die_at(world, launcher, name, steps, lifetime=SHORT_LIFETIME if name == "postgres" else LIFETIME)


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(kinds))
def test_replica_killed_at_any_step_of_issuing(world: World, launcher: Launcher, name: str, worker: Worker) -> None:
    die_at(world, launcher, name, list(issuing_steps(kinds[name])))


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(kinds))
def test_replica_killed_at_random_moments_of_issuing(
    world: World, launcher: Launcher, name: str, worker: Worker
) -> None:
    """Killed from outside, a few milliseconds into the request: whatever it was doing, the end is the same."""
    moments = [0.004 * n for n in range(1, 21)]
    guests = [guest(world, name) for _ in moments]
    rounds = [kill_from_outside(launcher, one, moment) for one, moment in zip(guests, moments, strict=True)]
    for killed in rounds:
        until_over(world, killed)
        values = killed.process.leaked()
        assert values is None or leases_of(world, killed.guest), "a credential that was never on record"
        assert values is None or not killed.guest.opens(values)
    nothing_astray(world)


def kill_from_outside(launcher: Launcher, guest: Guest, seconds: float) -> Killed:
    process = launcher.serve(kind=guest.kind.name, step="never")
    with process.client(guest.signed) as client:
        client.get("/me")
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(client.post, "/leases", json=guest.body(lifetime=LIFETIME))
            time.sleep(seconds)
            process.signal(signal.SIGKILL)
            asking.exception(20)
    process.killed()
    return Killed(guest, process, time.monotonic())
