"""The disk of the broker's own log is full: what is not logged is done all the same, and the record has it."""

from __future__ import annotations

import httpx
import pytest

from broker.base.database import clock
from broker.embedded.children import free_port
from broker.kinds.discovery import kinds
from broker.models import Lease
from broker.revocation import ending
from tests.faults.guests import each_kind, guest
from tests.faults.holding import ask, check_reason, leases_of, settle
from tests.faults.processes import Launcher
from tests.support.world import World

FULL = "/dev/full"


@pytest.mark.parametrize("name", each_kind("token"))
def test_replica_works_with_a_full_log_disk(world: World, launcher: Launcher, name: str) -> None:
    one = guest(world, name)
    with launcher.serve(log=FULL) as replica:
        answer = ask(replica.url, one)
        assert answer.status_code == 201
        assert one.opens(answer.json()["credential"])
        assert "lease.issued" in world.events(leases_of(world, one)[0].id)
        numbers = httpx.get(f"{replica.url}/metrics", trust_env=False, timeout=20).text
        lost = next(line for line in numbers.splitlines() if line.startswith("guestkey_log_lines_lost_total"))
        assert float(lost.split()[1]) >= 1
    settle(world, one)


@pytest.mark.whole
def test_replica_reports_openbao_down_with_a_full_log_disk(world: World, launcher: Launcher) -> None:
    one = guest(world, "token")
    nowhere = {"GUESTKEY_BAO_ADDR": f"http://127.0.0.1:{free_port()}"}
    with launcher.serve(log=FULL, environment=nowhere) as replica, replica.client(one.signed) as client:
        assert ask(replica.url, one).status_code == 503
        check_reason(client.get("/me"))
    settle(world, one)


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(kinds))
def test_worker_works_with_a_full_log_disk(world: World, launcher: Launcher, name: str) -> None:
    one = guest(world, name)
    handed = one.issue(world)
    with launcher.work(log=FULL):
        with world.database.transaction() as tx:
            ending.mark(tx, Lease.id == handed.lease.id, cause="revoked", by="system", now=clock(tx))
        world.wait_for(handed.lease.id, "revoked", seconds=15)
    assert handed.values is not None and not one.opens(handed.values)
