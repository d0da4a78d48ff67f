"""A real replica and a running worker, and programs of people and services that speak to it through `guestkey`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from broker.base.settings import Settings
from broker.runtime.parts import Parts
from guestkey import Client
from tests.support.world import Signed
from tests.web.conftest import Replica

ClientOf = Callable[[Signed], Client]


@pytest.fixture(scope="session")
def replica(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """The replica the programs speak to."""
    running = Replica(settings, parts)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client_of(replica: Replica) -> Iterator[ClientOf]:
    """Clients, one for each caller; closed after the test."""
    made: list[Client] = []

    def make(signed: Signed) -> Client:
        made.append(Client(replica.url, token=signed.token))
        return made[-1]

    yield make
    for client in made:
        client.close()
