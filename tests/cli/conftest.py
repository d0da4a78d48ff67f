"""A real replica, a running worker, and people at terminals who are signed in to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.parts import Parts
from broker.settings import Settings
from tests.cli.terminal import Terminal
from tests.support.world import Signed
from tests.web.conftest import Replica

TerminalOf = Callable[[Signed], Terminal]


@pytest.fixture(scope="session")
def replica(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """The replica the command line speaks to."""
    running = Replica(settings, parts)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def terminal_of(replica: Replica, tmp_path: Path) -> TerminalOf:
    """Somebody's terminal."""

    def make(signed: Signed) -> Terminal:
        home = tmp_path / signed.id
        home.mkdir(exist_ok=True)
        return Terminal(home, replica.url, GUESTKEY_TOKEN=signed.token, GUESTKEY_TIMEOUT="15")

    return make
