"""Whatever is lost on the way: what `guestkey` took and what may live is given back when it is closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

import guestkey
from broker.cli.faults import Code, Fault
from broker.models import Dataset
from guestkey import Client
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


def test_a_lease_whose_renewals_answer_was_lost_is_given_back_although_it_was_replaced(
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


def test_a_lease_whose_answer_was_lost_is_given_back_once_the_broker_answers(
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


def test_one_that_cannot_be_ended_keeps_no_other_and_is_tried_again(
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


def test_what_never_reached_anybody_is_not_asked_for_again() -> None:
    with Client("http://127.0.0.1:9", token="gka_x") as client:
        with pytest.raises(guestkey.BackendDown):
            client.lease("trials", kind="postgres")
        assert not client._lost


def test_the_first_error_is_raised_once_all_were_tried_and_tells_the_others() -> None:
    tried = []

    def fails(what: str) -> None:
        tried.append(what)
        raise guestkey.Refused(Fault(Code.FAULT, what))

    with pytest.raises(guestkey.Refused, match="one") as raised:
        all_of([partial(fails, "one"), partial(tried.append, "two"), partial(fails, "three")])
    assert tried == ["one", "two", "three"]
    assert raised.value.__notes__ == ["And: three"]
