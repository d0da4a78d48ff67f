"""Figures: what was issued and denied per day, and how soon suspensions were confirmed."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import text

from broker.auditing.statistics import DAYS, confirmed, days_query, per_day
from broker.base.errors import Denied, Forbidden
from broker.models import Lease, Suspension
from broker.suspensions import suspending
from tests.support.world import World


def test_daily_figures_count_issued_and_denied(world: World) -> None:
    auditor = world.person(roles=("auditor",)).caller
    signed, dataset, _ = world.guest()
    now = world.now()
    with world.database.transaction() as tx:
        before = per_day(tx, auditor, now)
    assert len(before) == DAYS and before[-1].day == now.date()
    world.issue(signed, dataset)
    world.issue(signed, dataset)
    with pytest.raises(Denied):
        world.issue(signed, dataset, slice="full")
    with world.database.transaction() as tx:
        after = per_day(tx, auditor, now)
        tomorrow = per_day(tx, auditor, now + timedelta(days=1))
        later = per_day(tx, auditor, now + timedelta(days=DAYS))
    assert (after[-1].issued, after[-1].denied) == (before[-1].issued + 2, before[-1].denied + 1)
    assert after[:-1] == before[:-1]
    assert tomorrow[-2] == after[-1] and not tomorrow[-1].issued, "each day moves one bar to the left"
    assert not any(day.issued or day.denied for day in later), "and out of sight"


def test_daily_figures_are_only_for_admins_and_auditors(world: World) -> None:
    with world.database.transaction() as tx, pytest.raises(Forbidden):
        per_day(tx, world.person().caller, world.now())


def test_daily_figures_use_an_index(world: World) -> None:
    with world.database.transaction() as tx:
        dialect = tx.connection().dialect
        query = days_query(world.now()).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        tx.execute(text("SET LOCAL enable_seqscan = off"))
        plan = tx.scalars(text(f"EXPLAIN {query}".replace(":", r"\:"))).all()
    assert not any(re.search(r"Seq Scan on event\b", line) for line in plan), plan


def test_suspension_seconds_are_compared_with_the_promise(world: World) -> None:
    admin = world.person(roles=("admin",)).caller
    signed, dataset, _ = world.guest()
    lease, idle = world.issue(signed, dataset).lease, world.person(world.vendor())
    with world.database.transaction() as tx:
        now = world.now()
        begun, _ = suspending.suspend(tx, admin, "person", signed.id, "left", now)
        of_none, _ = suspending.suspend(tx, admin, "person", idle.id, "left", now)
    shut = [begun.id, of_none.id]

    def figures(later: timedelta) -> list[tuple[str, int, float, int, bool]]:
        with world.database.transaction() as tx:
            items = [tx.get_one(Suspension, id_) for id_ in shut]
            found = confirmed(tx, items, now + later)
        return [(item.suspension.id, item.waiting, item.seconds, item.promised, item.kept) for item in found]

    assert figures(timedelta(seconds=4)) == [(begun.id, 1, 4.0, 5, True)]
    assert figures(timedelta(seconds=9)) == [(begun.id, 1, 9.0, 5, False)]
    world.wait_sweeping(lease.id, "revoked")
    world.change(Lease, lease.id, ended_at=now + timedelta(seconds=2))
    assert figures(timedelta(hours=1)) == [(begun.id, 0, 2.0, 5, True)]
