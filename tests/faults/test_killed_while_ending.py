"""Promise 2, the worker's half: a worker killed while it ends a credential delays the end, and no more than that.

What it had claimed is free again when its claim runs out, and another worker finishes, whatever had been done by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import pytest

from broker.base.database import clock
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.leases import sweeping
from broker.leases.issuing import Handed
from broker.models import Lease
from broker.revocation import ending
from tests.faults.guests import Guest, each_kind, guest
from tests.faults.holding import gone, nothing_astray, story_of
from tests.faults.processes import Launcher
from tests.faults.steps import ending_steps
from tests.support.world import World

CLAIM_SECONDS = 2
# Noticing that a claim has run out, and the end itself.
SLACK = 8
SHORT = ("by hand: door closed", "ended at the backend")


@dataclass(frozen=True)
class Round:
    """A credential whose end was begun by a worker that died."""

    guest: Guest
    handed: Handed
    goes_on: Callable[[], bool]


def revoke(world: World, guest: Guest, lease_id: str) -> None:
    with world.database.transaction() as tx:
        ending.revoke_lease(tx, tx.get_one(Lease, lease_id), guest.signed.caller, "", clock(tx))


@contextmanager
def kill_at(
    world: World, launcher: Launcher, kind: Kind, step: str, *, claim_seconds: int = CLAIM_SECONDS
) -> Iterator[Round]:
    """Hand a credential over, ask for its end while it is in use, and let the worker that ends it die at a step."""
    one = guest(world, kind.name)
    handed = one.issue(world)
    assert handed.values is not None and one.opens(handed.values)
    with one.stays(handed.values) if one.stays else nullcontext(lambda: False) as goes_on:
        worker = launcher.work(kind=kind.name, step=step, lease=handed.lease.id, claim_seconds=claim_seconds)
        revoke(world, one, handed.lease.id)
        worker.killed()
        lease = world.lease(handed.lease.id)
        assert lease.state == "revoking", f"{step}: shown as ended before that was on record"
        assert lease.claimed_until is not None
        yield Round(one, handed, goes_on)


def check_in_the_end(world: World, ended: Round, step: str) -> None:
    assert ended.handed.values is not None
    assert not ended.guest.opens(ended.handed.values), step
    gone(ended.goes_on, ended.guest.kind.ending.open_sessions)
    assert story_of(world, ended.handed.lease.id) == [
        "lease.issued",
        "lease.ending",
        "lease.revocation_asked",
        "lease.revoked",
    ], f"{step}: ended once, whoever finished it"


def die_at(world: World, launcher: Launcher, name: str, steps: list[str]) -> None:
    with ExitStack() as open_ones:
        rounds = {step: open_ones.enter_context(kill_at(world, launcher, kinds[name], step)) for step in steps}
        for step, one in rounds.items():
            world.wait_sweeping(one.handed.lease.id, "revoked", seconds=CLAIM_SECONDS + SLACK)
            check_in_the_end(world, one, step)
    nothing_astray(world)


@pytest.mark.parametrize("name", each_kind("postgres"))
def test_another_worker_finishes_the_end_of_a_killed_worker(world: World, launcher: Launcher, name: str) -> None:
    die_at(world, launcher, name, [step for step in ending_steps(kinds[name], "") if step in SHORT])


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(kinds))
def test_worker_killed_at_any_step_of_ending(world: World, launcher: Launcher, name: str) -> None:
    die_at(world, launcher, name, list(ending_steps(kinds[name], "")))


@pytest.mark.whole
def test_killed_workers_claim_delays_the_end_no_longer_than_declared(world: World, launcher: Launcher) -> None:
    """The worst moment: everything claimed, nothing done yet, the guest at work."""
    kind = kinds["postgres"]
    with kill_at(world, launcher, kind, "claimed", claim_seconds=sweeping.CLAIM_SECONDS) as left:
        assert kind.ending.worst_case is not None
        with launcher.work():
            gone(left.goes_on, kind.ending.worst_case)
            world.wait_for(left.handed.lease.id, "revoked", seconds=10)
