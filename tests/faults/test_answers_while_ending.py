"""Answers lost, cut short, late or garbled while a credential of each kind is made at its backend, and while it ends.

Between the worker and its records at whatever message it may be, and between whoever speaks with a kind's own backend
and that. PostgreSQL as the backend of datasets is in tests/faults/test_answers_of_postgresql.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from urllib.parse import urlsplit

import pytest

from broker.base.errors import GuestkeyError
from broker.base.settings import Settings
from broker.embedded.openbao import Operator
from broker.embedded.stack import Stack
from broker.kinds.discovery import kinds
from broker.models import Lease
from broker.runtime.parts import Parts
from tests.faults.guests import each_kind, guest
from tests.faults.holding import nothing_astray, settle
from tests.faults.proxy import TcpFault, TcpProxy
from tests.faults.test_answers_of_postgresql import ANYTHING, COMMIT, FAULTS, QUICK, behind, issue_through
from tests.support.mariadb import NAME as WARD_NAME
from tests.support.sshd import CONNECTION as SFTP_NAME
from tests.support.world import World
from tests.web.conftest import apart

# Kinds that somebody speaks with another backend for than OpenBao and PostgreSQL.
ELSEWHERE = ("mariadb", "s3", "ssh")
OPENED_ELSEWHERE = ("mariadb", "s3")
# More messages than any end takes.
_MOST = 200


def end_through(world: World, ender: Parts, way: TcpProxy, name: str, when: bytes, fault: TcpFault) -> int:
    """End a credential while a fault strikes at the first, second … message; returns how many there were."""
    far = World(world.stack, world.settings, world.parts, ender)
    for n in range(_MOST):
        one = guest(world, name)
        handed = one.issue(world)
        assert handed.values is not None
        world.change(Lease, handed.lease.id, expires_at=world.now())
        # Connections that lie open would spare the messages that open one; one cut a moment ago is not asked
        # whether it lives, and a sweep that fails on it meets no fault at all.
        way.cut_all()
        ender.database.close()
        with way.faulty(when, fault, skip=n):
            # As the worker's loop does: what is out of reach is tried again in the next round.
            with suppress(GuestkeyError):
                far.sweep()
            struck = way.struck
        # A connection cut a moment ago is not asked whether it lives; a worker would try again in its next round.
        ender.database.close()
        lease = world.lease(handed.lease.id)
        assert lease.state in ("active", "expired", "revoking", "revoke_failed")
        if lease.state == "expired":
            assert not one.opens(handed.values), f"{n}: shown as ended, and it is not"
        # As when its claim has run out.
        world.change(Lease, lease.id, claimed_until=world.now(), next_attempt_at=world.now())
        (ended,) = settle(far, one)
        assert ended.state == "expired" and not one.opens(handed.values), n
        story = world.events(lease.id)
        assert [story.count(kind) for kind in ("lease.ending", "lease.expired")] == [1, 1], f"{n}: {story}"
        if not struck:
            nothing_astray(world)
            return n
    raise AssertionError("it never came through")


@pytest.fixture
def to_records(stack: Stack) -> Iterator[TcpProxy]:
    """What stands between the worker and its records."""
    made = TcpProxy("127.0.0.1", stack.ports.records)
    yield made
    made.close()


@pytest.fixture
def far_ender(settings: Settings, stack: Stack, to_records: TcpProxy, world: World, name: str) -> Iterator[Parts]:
    """The parts of a worker that reaches its records by that way, and knows the server of a kind."""
    guest(world, name)
    made = Parts.build(behind(settings, stack, to_records), identity="ender")
    yield made
    made.close()


@pytest.mark.parametrize("name", each_kind("token"))
def test_ending_survives_commits_with_unknown_outcome(
    world: World, to_records: TcpProxy, far_ender: Parts, name: str
) -> None:
    """That it is over; whose it is to end it; that it has ended."""
    assert end_through(world, far_ender, to_records, name, COMMIT, FAULTS["lost"]) >= 2


@pytest.mark.whole
@pytest.mark.parametrize("fault", QUICK)
@pytest.mark.parametrize("name", sorted(kinds))
def test_ending_survives_loss_of_any_record_message(
    world: World, to_records: TcpProxy, far_ender: Parts, name: str, fault: str
) -> None:
    assert end_through(world, far_ender, to_records, name, ANYTHING, FAULTS[fault]) > 10


@pytest.mark.whole
@pytest.mark.parametrize("fault", ["held back", "late"])
@pytest.mark.parametrize("name", sorted(kinds))
def test_ending_survives_late_commit_answers(
    world: World, to_records: TcpProxy, far_ender: Parts, name: str, fault: str
) -> None:
    assert end_through(world, far_ender, to_records, name, COMMIT, FAULTS[fault]) >= 2


@pytest.fixture
def elsewhere(world: World, settings: Settings, name: str) -> Iterator[tuple[TcpProxy, Settings]]:
    """What stands between the broker, or OpenBao, and the backend of a kind; and settings that reach it that way."""
    guest(world, name)
    far = settings.model_copy(deep=True)
    if name == "s3":
        store = far.connections("s3")["objects"]
        made = TcpProxy("127.0.0.1", urlsplit(store.endpoint_url or "").port or 0)
        store.endpoint_url = f"http://127.0.0.1:{made.port}"
        yield made, far
    elif name == "ssh":
        host = far.connections("ssh")[SFTP_NAME]
        made = TcpProxy("127.0.0.1", host.port)
        host.port = made.port
        yield made, far
    else:
        port = settings.connections("mariadb")[WARD_NAME].port
        made = TcpProxy("127.0.0.1", port)
        with ward_reached_by(world, port, made.port):
            yield made, far
    made.close()


@contextmanager
def ward_reached_by(world: World, port: int, other: int) -> Iterator[None]:
    """Tell OpenBao, as the operator would, that MariaDB is to be reached by another port."""
    operator = Operator(world.stack.bao)
    watch = world.ender.vault.secret(f"connections/{WARD_NAME}/watch")["url"]

    def tell(now: int) -> None:
        url = f"{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{now})/?timeout=3s&readTimeout=10s&writeTimeout=10s"
        operator._call("POST", f"database/config/{WARD_NAME}", {"connection_url": url})
        operator.set_login_url(WARD_NAME, "watch", watch.replace(f":{port}?", f":{now}?"))

    tell(other)
    yield
    tell(port)


@pytest.mark.whole
@pytest.mark.parametrize("fault", [*QUICK, "late"])
@pytest.mark.parametrize("name", OPENED_ELSEWHERE)
def test_issuing_survives_loss_of_any_backend_message(
    world: World, elsewhere: tuple[TcpProxy, Settings], name: str, fault: str
) -> None:
    way, far = elsewhere
    with apart(far) as replica:
        assert issue_through(world, way, replica, name, ANYTHING, FAULTS[fault]) >= 1


@pytest.mark.whole
# A MariaDB that lets wait is in tests/credentials/test_mariadb_ending.py.
@pytest.mark.parametrize(("name", "fault"), [*product(ELSEWHERE, QUICK), ("s3", "late"), ("ssh", "late")])
def test_ending_survives_loss_of_any_backend_message(
    world: World, elsewhere: tuple[TcpProxy, Settings], name: str, fault: str
) -> None:
    way, far = elsewhere
    ender = Parts.build(far, identity="ender")
    try:
        assert end_through(world, ender, way, name, ANYTHING, FAULTS[fault]) >= 3
    finally:
        ender.close()
