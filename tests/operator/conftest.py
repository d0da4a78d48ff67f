"""A house of its own: what closes everything must not shut out tests that share a stack. And the server's commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
import structlog
from typer.testing import CliRunner

from broker.access import closing
from broker.access.installing import install
from broker.database import now as clock
from broker.embedded.stack import Stack
from broker.migrations import upgrade
from broker.operator.main import app
from broker.parts import Parts
from broker.settings import Settings
from broker.web.observability import TOO_TALKATIVE
from tests.support.data import make_clinic
from tests.support.world import World


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> Ran:
    """Run a server command inside this process: most of what one of its own costs is to start.

    Only the settings among the variables count. Logging is as before afterwards.
    """
    logging_of_ours, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quieted = {name: logging.getLogger(name).level for name in TOO_TALKATIVE}
    variables = {name: value for name, value in environment.items() if name.startswith("GUESTKEY_")}
    try:
        result = CliRunner().invoke(app, list(arguments), env=variables, prog_name="guestkey")
    finally:
        structlog.configure(**logging_of_ours)
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before in quieted.items():
            logging.getLogger(name).setLevel(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="package")
def own_stack() -> Iterator[Stack]:
    """OpenBao and PostgreSQL for the tests here that close or restore a house."""
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
    world = World(own_stack, settings, parts, ender)
    with parts.database.transaction() as tx:
        if closing.standing(tx).closed_at is not None:
            closing.open_again(tx, world.person(roles=("admin",)).caller, "the next test", clock(tx))
    yield world
    parts.close()
    ender.close()
