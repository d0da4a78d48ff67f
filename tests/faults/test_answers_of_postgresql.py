"""PostgreSQL's answers lost, cut short, held back or garbled, at whatever message of a request it may be.

What PostgreSQL was asked for has been done all the same. The hardest are commits: nobody knows whether they held. For
the records, and for the database of a dataset, which OpenBao and the worker speak to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from pydantic import PostgresDsn, Secret

from broker.base.settings import Settings
from broker.embedded.openbao import Operator
from broker.embedded.stack import Stack
from broker.kinds.discovery import kinds
from broker.leases import reconciling
from broker.leases.issuing import Handed
from broker.models import Lease
from broker.runtime.parts import Parts
from tests.faults import proxy as faults
from tests.faults.guests import Guest, each_kind, guest
from tests.faults.holding import again, ask, leases_of, nothing_astray, settle
from tests.faults.proxy import TcpFault, TcpProxy
from tests.support.world import World
from tests.web.conftest import Replica, apart

# Longer than a connection to the records waits for an answer.
TOO_LATE = 3.0
FAULTS: dict[str, TcpFault] = {
    "lost": faults.answers_lost(),
    "cut short": faults.answers_cut(3),
    "garbled": faults.answers_garbled(),
    "held back": faults.answers_held(),
    "late": faults.answers_late(TOO_LATE),
}
QUICK = ("lost", "cut short", "garbled")
ANYTHING, COMMIT = b"", b"COMMIT"
# More messages than any request here takes.
_MOST = 200


@pytest.fixture
def to_records(stack: Stack) -> Iterator[TcpProxy]:
    """What stands between the broker and its records."""
    made = TcpProxy("127.0.0.1", stack.ports.records)
    yield made
    made.close()


def behind(settings: Settings, stack: Stack, proxy: TcpProxy) -> Settings:
    """Settings that reach the records by a proxy."""
    url = stack.postgres.url("app", "guestkey").replace(f":{stack.ports.records}/", f":{proxy.port}/")
    return settings.model_copy(update={"database_url": Secret(PostgresDsn(url))})


@pytest.fixture
def replica(settings: Settings, stack: Stack, to_records: TcpProxy) -> Iterator[Replica]:
    """A replica that reaches its records by that way."""
    with apart(behind(settings, stack, to_records)) as running:
        yield running


@pytest.fixture
def to_data(stack: Stack) -> Iterator[TcpProxy]:
    """What stands between a dataset's database and whoever makes and ends its users."""
    made = TcpProxy("127.0.0.1", stack.ports.postgres)
    with reached_by(stack, made.port):
        yield made
    with reached_by(stack, stack.ports.postgres):
        made.close()


@contextmanager
def reached_by(stack: Stack, port: int) -> Iterator[None]:
    """Tell OpenBao, as the operator would, that the database is to be reached by a port."""
    operator = Operator(stack.bao)
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/data?sslmode=disable"
    operator._call("POST", "database/config/data", {"connection_url": url})
    login = stack.postgres.url("watch", "data").replace(f":{stack.ports.postgres}/", f":{port}/")
    operator._call("POST", "guestkey/data/connections/data/watch", {"data": {"url": login}})
    yield


def issue_through(world: World, way: TcpProxy, replica: Replica, name: str, when: bytes, fault: TcpFault) -> int:
    """Let a fault strike at the first, second … message of a request until none is left; returns how many."""
    assert ask(replica.url, guest(world, name)).status_code == 201
    rounds = []
    for n in range(_MOST):
        one = guest(world, name)
        with way.faulty(when, fault, skip=n):
            answer = ask(replica.url, one)
            struck = way.struck
        if not struck:
            settle(world, one)
            break
        again(lambda: ask(replica.url, guest(world, name)))
        rounds.append((n, one, answer))
    for n, one, answer in rounds:
        on_record = leases_of(world, one)
        if answer.status_code == 201:
            assert [lease.state for lease in on_record] == ["active"], n
            assert one.opens(answer.json()["credential"]), n
        assert len(on_record) <= 1
        settle(world, one)
        if answer.status_code == 201:
            assert not one.opens(answer.json()["credential"]), n
    nothing_astray(world)
    return len(rounds)


@pytest.mark.parametrize("name", each_kind("token"))
def test_issuing_survives_commits_with_unknown_outcome(
    world: World, to_records: TcpProxy, replica: Replica, name: str
) -> None:
    # Who asks is looked up; the decision with its lease; where something is made at a backend, that it is active.
    assert issue_through(world, to_records, replica, name, COMMIT, FAULTS["lost"]) >= 2 + kinds[name].at_backend


@pytest.mark.whole
@pytest.mark.parametrize("fault", QUICK)
@pytest.mark.parametrize("name", sorted(kinds))
def test_issuing_survives_loss_of_any_postgresql_message(
    world: World, to_records: TcpProxy, replica: Replica, name: str, fault: str
) -> None:
    assert issue_through(world, to_records, replica, name, ANYTHING, FAULTS[fault]) > 10


@pytest.mark.whole
@pytest.mark.parametrize("fault", ["held back", "late"])
@pytest.mark.parametrize("name", sorted(kinds))
def test_issuing_survives_missing_postgresql_answers(
    world: World, to_records: TcpProxy, replica: Replica, name: str, fault: str
) -> None:
    assert issue_through(world, to_records, replica, name, COMMIT, FAULTS[fault]) >= 2


@pytest.mark.whole
@pytest.mark.parametrize("name", ["s3", "ssh"])
def test_issuing_survives_delay_of_any_postgresql_message(
    world: World, to_records: TcpProxy, replica: Replica, name: str
) -> None:
    assert issue_through(world, to_records, replica, name, ANYTHING, FAULTS["late"]) > 10


@pytest.mark.whole
@pytest.mark.parametrize("when", [b"CREATE ROLE", b"GRANT", b"commit", b"VALID UNTIL"], ids=lambda when: when.decode())
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_creating_a_user_survives_loss_of_any_message(
    world: World, settings: Settings, to_data: TcpProxy, fault: str, when: bytes
) -> None:
    """Between OpenBao and the dataset's database; OpenBao may say that it failed though the user is there."""
    with apart(settings) as replica:
        one = guest(world, "postgres")
        with to_data.faulty(when, FAULTS[fault]):
            answer = ask(replica.url, one)
            time.sleep(0.2)
            assert to_data.struck
        again(lambda: ask(replica.url, guest(world, "postgres")), seconds=30)
        assert len(leases_of(world, one)) == 1
        settle(world, one)
        assert world.roles_of(leases_of(world, one)[0].id) == 0
        if answer.status_code == 201:
            assert not one.opens(answer.json()["credential"])


def end_through(world: World, way: TcpProxy, when: bytes, fault: TcpFault) -> int:
    """End a credential while a fault strikes at the first, second … message; returns how many there were."""
    for n in count():
        one = guest(world, "postgres")
        handed = one.issue(world)
        time.sleep(0.1)
        world.change(Lease, handed.lease.id, expires_at=world.now())
        with way.faulty(when, fault, skip=n):
            world.sweep()
            struck = way.struck
            lease = world.lease(handed.lease.id)
            assert lease.state in ("expired", "revoke_failed", "revoking"), lease.state
            if lease.state == "expired":
                assert world.roles_of(lease.id) == 0, f"{n}: shown as ended, and it is not"
        check_end(world, one, handed)
        if not struck:
            return n
        assert n < _MOST
    raise AssertionError


def check_end(world: World, one: Guest, handed: Handed) -> None:
    settle(world, one)
    assert handed.values is not None
    assert world.lease(handed.lease.id).state == "expired"
    assert not one.opens(handed.values)
    assert world.events(handed.lease.id)[-1] == "lease.expired"


@pytest.mark.whole
@pytest.mark.parametrize("fault", QUICK)
def test_ending_survives_loss_of_any_postgresql_message(world: World, to_data: TcpProxy, fault: str) -> None:
    assert end_through(world, to_data, ANYTHING, FAULTS[fault]) > 10


@pytest.mark.whole
@pytest.mark.parametrize("when", [b"NOLOGIN", b"pg_terminate_backend", b"DROP ROLE", b"pg_stat_activity"])
def test_ending_survives_missing_postgresql_answers(world: World, to_data: TcpProxy, when: bytes) -> None:
    assert end_through(world, to_data, when, FAULTS["held back"]) >= 1


@pytest.mark.whole
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_worker_survives_loss_of_its_own_database_messages(
    world: World, settings: Settings, stack: Stack, to_records: TcpProxy, fault: str
) -> None:
    """Whatever the worker could not note it finds again; what it could not read it leaves as it was."""
    ender = Parts.build(behind(settings, stack, to_records), identity="ender")
    far = World(stack, settings, world.parts, ender)
    steps: list[Callable[[], object]] = [far.sweep, lambda: reconciling.reconcile(ender)]
    try:
        for n in range(12 if fault == "held back" else _MOST):
            one = guest(world, "postgres")
            handed, living = (one.issue(world) for _ in range(2))
            world.change(Lease, handed.lease.id, expires_at=world.now())
            with to_records.faulty(COMMIT, FAULTS[fault], skip=n):
                for step in steps:
                    _quietly(step)
                struck = to_records.struck
            assert world.lease(living.lease.id).state == "active"
            world.change(Lease, handed.lease.id, claimed_until=world.now())
            check_end(world, one, handed)
            if not struck:
                break
    finally:
        ender.close()


def _quietly(step: Callable[[], object]) -> None:
    """As the worker's loop does: what a backend refuses is tried again in the next round."""
    from broker.base.errors import GuestkeyError

    try:
        step()
    except GuestkeyError as error:
        assert error.detail
