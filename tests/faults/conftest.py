"""Broker processes of the tests' own, on the stack that all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.embedded.stack import Stack
from broker.parts import Parts
from tests.faults.processes import Launcher

# Pending leases are given up after three times the deadline: soon enough to be waited for.
ISSUE_DEADLINE = 1.0


@pytest.fixture(scope="session")
def launcher(stack: Stack, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """What starts broker processes; the installation has been set up."""
    assert parts.tag
    environment = stack.environment() | {
        "GUESTKEY_ISSUE_DEADLINE": str(ISSUE_DEADLINE),
        "GUESTKEY_SWEEP_INTERVAL": "0.5",
        "GUESTKEY_REDECIDE_INTERVAL": "1",
        "GUESTKEY_RATE_LIMIT_PER_MINUTE": "100000",
    }
    folder: Path = tmp_path_factory.mktemp("brokers")
    made = Launcher(folder, environment)
    yield made
    made.close()
