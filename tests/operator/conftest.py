"""A house of its own: what closes everything must not shut out the tests that share a stack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest

from broker.access.installing import install
from broker.database import now as clock
from broker.embedded.stack import Stack
from broker.migrations import upgrade
from broker.parts import Parts
from broker.settings import Settings
from tests.support.data import make_clinic
from tests.support.world import World


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """OpenBao and PostgreSQL for one file of tests."""
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        running = Stack(Path(folder))
        running.start()
        try:
            upgrade(running.postgres.url("owner", "guestkey"))
            make_clinic(running.postgres.url("postgres", "data"))
            yield running
        finally:
            running.stop()


@pytest.fixture
def house(own_stack: Stack) -> Iterator[World]:
    """A world on that stack, with processes' parts made anew for each test, as after a start."""
    with patch.dict(os.environ, own_stack.environment()):
        settings = Settings()
    parts, ender = Parts.build(settings, identity="issuer"), Parts.build(settings, identity="ender")
    with parts.database.transaction() as tx:
        install(tx, clock(tx))
    yield World(own_stack, settings, parts, ender)
    parts.close()
    ender.close()
