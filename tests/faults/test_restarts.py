"""PostgreSQL restarted in the middle of a transaction: of the decision, of the activation, of the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from sqlalchemy import select

from broker.base.database import clock
from broker.base.errors import BackendDown
from broker.kinds.discovery import kinds
from broker.leases import issuing, sweeping
from broker.log import audit
from broker.models import Event, Lease
from broker.revocation import ending
from tests.faults import steps
from tests.faults.guests import Guest, each_kind, guest
from tests.faults.holding import leases_of, nothing_astray, settle, story_of
from tests.support.world import World

AT_BACKEND = sorted(name for name, kind in kinds.items() if kind.at_backend)
T = TypeVar("T")
# The restart itself is in it.
_SECONDS = 8.0


def once(world: World) -> Callable[[], None]:
    """Restart PostgreSQL, the first time only."""
    done: list[bool] = []

    def restart() -> None:
        if not done:
            done.append(True)
            world.stack.postgres.stop()
            world.stack.postgres.start()
            # Connections that lay idle for so long are asked whether they live before they are used.
            time.sleep(0.3)

    return restart


def refused(world: World, one: Guest) -> None:
    began = time.monotonic()
    with pytest.raises(BackendDown) as down:
        one.issue(
            world,
        )
    assert time.monotonic() - began < _SECONDS
    assert (down.value.backend, bool(down.value.advice)) == ("postgresql", True)


class InPlace(ThreadPoolExecutor):
    """Hands that work here and now, in the thread whose servers they restart."""

    def submit(self, fn: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """See `concurrent.futures.Executor.submit`."""
        done: Future[T] = Future()
        done.set_result(fn(*arguments, **named))
        return done


@pytest.fixture
def patched() -> Any:
    """Functions wrapped for one test."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def wrap_after(patched: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], None]) -> None:
    patched.setattr(owner, name, getattr(owner, name))
    steps.after(owner, name, act)


def seen_again(world: World, lease_id: str) -> Lease:
    """A lease, read over connections of which some died with the server."""
    end = time.monotonic() + _SECONDS
    while True:
        try:
            return world.lease(lease_id)
        except BackendDown:
            assert time.monotonic() < end


@pytest.mark.parametrize("name", each_kind("postgres"))
def test_postgresql_restart_between_decision_and_commit(world: World, name: str, patched: pytest.MonkeyPatch) -> None:
    one = guest(world, name)
    wrap_after(patched, issuing, "_begin_child_token", once(world))
    refused(world, one)
    assert leases_of(world, one) == []
    with world.database.transaction() as tx:
        decided = tx.scalars(select(Event.id).where(Event.subject == one.dataset.id, Event.kind == "decision.allowed"))
        assert decided.all() == [], "no decision that led to nothing"
    handed = one.issue(
        world,
    )
    assert handed.values is not None and one.opens(handed.values)
    settle(world, one)
    nothing_astray(world)


@pytest.mark.whole
@pytest.mark.parametrize("name", AT_BACKEND)
def test_postgresql_restart_between_activation_and_commit(world: World, name: str, patched: pytest.MonkeyPatch) -> None:
    one = guest(world, name)
    made: list[Any] = []
    issue = one.kind.issue

    def remembering(*arguments: Any) -> Any:
        made.append(issue(*arguments))
        return made[-1]

    patched.setattr(one.kind, "issue", remembering)
    wrap_after(patched, issuing, "_record_issued", once(world))
    refused(world, one)
    (lease,) = leases_of(world, one)
    assert (lease.state, world.events(lease.id)) == ("pending", [])
    assert one.opens(made[0].values) != one.asked_about, "there is something to take back"
    settle(world, one)
    assert leases_of(world, one)[0].state == "revoked"
    assert not one.opens(made[0].values)


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(kinds))
def test_postgresql_restart_between_an_end_and_its_record(world: World, name: str, patched: pytest.MonkeyPatch) -> None:
    one = guest(world, name)
    handed = one.issue(
        world,
    )
    with world.database.transaction() as tx:
        ending.mark(tx, Lease.id == handed.lease.id, cause="revoked", by="system", now=clock(tx))
    for name_of in ("record", "record_many"):
        patched.setattr(audit, name_of, getattr(audit, name_of, None), raising=False)
    steps.noted(handed.lease.id, once(world))
    sweeping.end_marked(world.ender, InPlace(1))
    assert seen_again(world, handed.lease.id).state == "revoking", "not shown as ended before it is on record"
    # As when its claim has run out.
    world.change(Lease, handed.lease.id, claimed_until=world.now())
    world.wait_sweeping(handed.lease.id, "revoked")
    assert story_of(world, handed.lease.id) == ["lease.issued", "lease.ending", "lease.revoked"]
    assert handed.values is not None and not one.opens(handed.values)
