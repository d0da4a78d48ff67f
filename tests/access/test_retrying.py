"""Ending goes on for ever: what a backend does not let go of is tried again, alarmed once, and gone in the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from sqlalchemy import func, select

from broker.access.outcomes import SLOWEST_RETRY
from broker.credentials.postgres_sessions import user_of
from broker.embedded.children import free_port
from broker.embedded.operator import Operator
from broker.models import Lease, Notice, Slice
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
