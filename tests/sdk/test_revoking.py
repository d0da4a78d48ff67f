"""Whatever is lost on the way: what `guestkey` took and what may live is given back when it is closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

import guestkey
from broker.models import Dataset
from guestkey import Client
from guestkey.cli.faults import Code, Fault
from guestkey.closing import all_of
from tests.faults.proxy import Answer, HttpProxy, lost
from tests.support.world import Signed, World
from tests.web.conftest import Replica

pytestmark = pytest.mark.usefixtures("worker")


class Way(HttpProxy):
    """The way to the replica, which answers by its own name only."""

    def __init__(self, replica: Replica) -> None:
        super().__init__("127.0.0.1", replica.port)
        self._name = f"localhost:{replica.port}"

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Hand it through, addressed to the replica."""
        named = {name: value for name, value in headers.items() if name.lower() != "host"}
        return super().forward(method, path, {**named, "Host": self._name}, body)


@pytest.fixture
def way(replica: Replica) -> Iterator[Way]:
    """A way that loses answers when told to."""
    made = Way(replica)
    yield made
    made.close()


@pytest.fixture
def client(world: World, way: Way) -> Iterator[tuple[Client, Signed, Dataset]]:
    """A client on that way, of a guest with a dataset."""
    signed, dataset, _ = world.guest()
    with Client(way.address, token=signed.token) as made:
        yield made, signed, dataset


def test_lease_with_a_lost_renewal_answer_is_revoked(
    world: World, way: Way, client: tuple[Client, Signed, Dataset]
) -> None:
    ours, _, dataset = client
    with ours.credentials(dataset.slug, kind="postgres", lifetime=6) as credentials:
        with way.faulty("/renew", lost):
            first = credentials.current()
            time.sleep(max(first.seconds_left() + 0.2, 0))
            assert first.over and way.struck, "nobody here knows that it was renewed"
            second = credentials.current()
        assert second.id != first.id and world.lease(first.id).state == "active"
        assert list(ours._renewing._kept) == [second.id], "what was replaced is not kept alive beside it"
    assert world.lease(second.id).state == "revoked"
    assert world.wait_for(first.id, "revoked").expires_at > first.expires_at


def test_lease_with_a_lost_answer_is_revoked_when_the_broker_responds(
    world: World, way: Way, client: tuple[Client, Signed, Dataset]
) -> None:
    ours, signed, dataset = client
    credentials = ours.credentials(dataset.slug, kind="postgres", lifetime=120)
    with way.faulty("/leases", lost), pytest.raises(guestkey.BackendDown):
        credentials.current()
    (made,) = world.leases_of(signed)
    assert len(way.struck) == 2 and world.lease(made).state == "active"
    with way.faulty("/leases", lost), pytest.raises(guestkey.BackendDown):
        credentials.close()
    credentials.close()
    world.wait_for(made, "revoked")
    assert world.leases_of(signed) == [made]


def test_failed_revoke_does_not_block_others_and_is_retried(
    world: World, way: Way, client: tuple[Client, Signed, Dataset]
) -> None:
    ours, _, dataset = client
    credentials = [ours.credentials(dataset.slug, kind="token", lifetime=120) for _ in range(2)]
    first, second = (one.current() for one in credentials)
    with way.faulty(f"/{first.id}/revoke", lost), pytest.raises(guestkey.BackendDown):
        all_of(one.close for one in credentials)
    assert world.wait_for(second.id, "revoked") and not second.owed
    assert first.over and first.owed
    with way.faulty(f"/{first.id}/revoke", lambda answer: answer):
        ours.close()
        assert len(way.struck) == 1
    assert not first.owed


def test_request_that_was_never_sent_is_not_retried() -> None:
    with Client("http://127.0.0.1:9", token="gka_x") as client:
        with pytest.raises(guestkey.BackendDown):
            client.lease("trials", kind="postgres")
        assert not client._lost


def test_first_error_is_raised_after_all_and_lists_the_others() -> None:
    tried = []

    def fails(what: str) -> None:
        tried.append(what)
        raise guestkey.Refused(Fault(Code.FAULT, what))

    with pytest.raises(guestkey.Refused, match="one") as raised:
        all_of([partial(fails, "one"), partial(tried.append, "two"), partial(fails, "three")])
    assert tried == ["one", "two", "three"]
    assert raised.value.__notes__ == ["And: three"]
