"""A real replica, a running worker, and people at terminals who are signed in to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.base.settings import Settings
from broker.runtime.parts import Parts
from tests.cli.terminal import Terminal
from tests.support.world import Signed
from tests.web.conftest import Replica

TerminalOf = Callable[[Signed | None], Terminal]


@pytest.fixture(scope="session")
def replica(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """The replica the command line speaks to."""
    running = Replica(settings, parts)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def terminal_of(replica: Replica, tmp_path: Path) -> TerminalOf:
    """Somebody's terminal; None: nobody has signed in there."""

    def make(signed: Signed | None) -> Terminal:
        home = tmp_path / (signed.id if signed else "nobody")
        home.mkdir(exist_ok=True)
        token = {"GUESTKEY_TOKEN": signed.token} if signed else {}
        return Terminal(home, replica.url, **token, GUESTKEY_TIMEOUT="15")

    return make
