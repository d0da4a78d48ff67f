"""A house of its own: what closes everything must not shut out tests that share a stack. And the server's commands."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import structlog
from typer.testing import CliRunner

from broker.base.database import clock
from broker.embedded.children import free_port
from broker.embedded.stack import Stack
from broker.kinds.settings import load_settings
from broker.operator.main import app
from broker.revocation import closing
from broker.runtime.parts import Parts, install
from broker.web.observability import TOO_TALKATIVE
from tests.support.serving import Served
from tests.support.stacks import running_stack
from tests.support.waiting import answered
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
    with running_stack() as running:
        yield running


@pytest.fixture
def house(own_stack: Stack) -> Iterator[World]:
    """A world on that stack, with processes' parts made anew for each test, as after a start."""
    with patch.dict(os.environ, own_stack.environment()):
        settings = load_settings()
    parts, ender = Parts.build(settings, identity="issuer"), Parts.build(settings, identity="ender")
    with parts.database.transaction() as tx:
        install(tx, clock(tx))
    world = World(own_stack, settings, parts, ender)
    with parts.database.transaction() as tx:
        if closing.installation_state(tx).closed_at is not None:
            closing.reopen(tx, world.person(roles=("admin",)).caller, "the next test", clock(tx))
    yield world
    parts.close()
    ender.close()


_RUN = "from broker.operator.main import app; app(prog_name='guestkey')"


@pytest.fixture(scope="package")
def served(stack: Stack, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server on every address of this machine, IPv6 and IPv4 alike, behind a proxy at 127.0.0.2."""
    assert parts.tag
    port, log = free_port(), tmp_path_factory.mktemp("served") / "log"
    changes = {
        "GUESTKEY_PUBLIC_URL": f"http://localhost:{port}",
        "GUESTKEY_TRUSTED_PROXIES": '["127.0.0.2/32"]',
        "GUESTKEY_RATE_LIMIT_ANONYMOUS_PER_MINUTE": "100000",
    }
    with log.open("wb") as written:
        child = subprocess.Popen(
            [sys.executable, "-c", _RUN, "serve", "--host", "::", "--port", str(port)],
            env={**os.environ, **stack.environment(), **changes},
            stdout=written,
            stderr=written,
        )
        try:
            answered(f"http://localhost:{port}/healthz", child)
            yield Served(port, child, log)
        finally:
            child.terminate()
            child.wait(30)
