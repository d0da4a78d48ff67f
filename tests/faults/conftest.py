"""Broker processes of the tests' own, on the stack that all tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from broker.base.settings import Settings
from broker.embedded.stack import Stack
from broker.leases import reconciling
from broker.runtime.parts import Parts
from tests.faults import guests
from tests.faults.processes import Launcher
from tests.support.gateway import NAME as GATEWAY_NAME
from tests.support.gateway import Gateway, gateway
from tests.support.stacks import durable
from tests.web.conftest import Replica

# Pending leases are given up after three times the deadline: soon enough to be waited for.
ISSUE_DEADLINE = 1.0


@pytest.fixture(scope="module", autouse=True)
def swept(ender: Parts) -> None:
    """What other tests of this worker made at backends and left unrecorded is no stray of ours."""
    reconciling.reconcile(ender)


@pytest.fixture(scope="package", autouse=True)
def as_in_operation(stack: Stack) -> Iterator[None]:
    """What is written waits for the disk."""
    with durable(stack):
        yield


@pytest.fixture(scope="session")
def launcher(
    stack: Stack, settings: Settings, parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launcher]:
    """What starts broker processes; the installation has been set up."""
    assert parts.tag
    folder: Path = tmp_path_factory.mktemp("brokers")
    made = Launcher(folder, partial(environment, stack, settings))
    yield made
    made.close()


def environment(stack: Stack, settings: Settings) -> dict[str, str]:
    """The variables of a process, with every connection that the settings of this run know by now."""
    connections = {
        f"GUESTKEY_{name.upper()}": json.dumps(given)
        for name, given in settings.model_dump(mode="json", exclude_none=True).items()
        if name.endswith("_connections")
    }
    return {
        **stack.environment(),
        **connections,
        "GUESTKEY_ISSUE_DEADLINE": str(ISSUE_DEADLINE),
        "GUESTKEY_SWEEP_INTERVAL": "0.5",
        "GUESTKEY_REDECIDE_INTERVAL": "1",
        "GUESTKEY_RATE_LIMIT_PER_MINUTE": "100000",
    }


@pytest.fixture(scope="module")
def gate(settings: Settings, parts: Parts) -> Iterator[Gateway]:
    """A gateway that asks guests for certificates, and a replica that it asks for the list."""
    asked = Replica(settings, parts)
    asked.start()
    port = settings.connections("x509")[GATEWAY_NAME].port
    with gateway(asked.url, port, parts.vault.ca_certificate()) as made:
        made.start()
        yield made
    asked.stop()


@pytest.fixture(autouse=True)
def places(request: pytest.FixtureRequest) -> None:
    """Where guests of some kinds need a server of their own: it is started once one is asked for."""
    guests.place.set(request.getfixturevalue)
