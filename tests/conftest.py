"""The real servers, started once per run on free ports and stopped by process id; nothing is mocked."""

from __future__ import annotations

import gc
import json
import os
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import httpx._transports.default as httpx_transports
import pytest
import structlog
from httpx._config import create_ssl_context

from broker.base.database import clock
from broker.base.settings import Settings
from broker.embedded.children import free_port
from broker.embedded.stack import Stack
from broker.kinds.mariadb.connection import MariadbConnection
from broker.kinds.settings import load_settings
from broker.kinds.ssh.connection import SshConnection
from broker.runtime.parts import Parts, install, vault_of
from broker.worker.worker import Worker
from tests.support.mariadb import NAME as WARD_NAME
from tests.support.mariadb import Mariadb, mariadb
from tests.support.provider import Provider
from tests.support.sshd import CONNECTION, SftpHost, sftp_host
from tests.support.stacks import be_durable, running_stack
from tests.support.stock import Stock
from tests.support.world import CLINIC, World

# Files that share what takes long to start: each set of them stays with one worker of pytest.
_TOGETHER = ("notices", "operator", "portal")
_SERVERS = {"ward": "mariadb", "sftp": "sshd"}
_PURE = ("tests", "policies")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, and files that share their own servers; pure parts are fast."""
    asked: dict[str, set[str]] = defaultdict(set)
    for item in items:
        asked[item.path.name] |= {_SERVERS[name] for name in getattr(item, "fixturenames", ()) if name in _SERVERS}
    for item in items:
        folder = item.path.parent.name
        group = folder if folder in _TOGETHER else min(asked[item.path.name], default=item.path.name)
        item.add_marker(pytest.mark.xdist_group(group))
        if folder in _PURE:
            item.add_marker(pytest.mark.fast)


def pytest_collection_finish() -> None:
    """What stays to the end of the run is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def listening() -> Iterator[None]:
    """Let no logger keep what it was configured with: a later test may listen to it."""
    configure = structlog.configure

    def uncached(**given: Any) -> None:
        configure(**{**given, "cache_logger_on_first_use": False})

    with patch.object(structlog, "configure", uncached):
        yield


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """Let clients of httpx share what they trust: to read the system's authorities costs more than most tests do."""

    @lru_cache
    def kept(trust_env: bool, _file: str | None, _folder: str | None) -> ssl.SSLContext:
        return create_ssl_context(trust_env=trust_env)

    def context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
        if verify is not True or cert is not None:
            return create_ssl_context(verify, cert, trust_env)
        return kept(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    with patch.object(httpx_transports, "create_ssl_context", context):
        yield


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The servers of this process, which its tests share; see `tests.support.stacks`."""
    with running_stack() as running:
        be_durable(running, False)
        yield running


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    """The settings of a process on this stack, with limits a test run does not hit by accident."""
    variables = stack.environment() | {
        "GUESTKEY_RATE_LIMIT_PER_MINUTE": "100000",
        "GUESTKEY_RATE_LIMIT_ANONYMOUS_PER_MINUTE": "100000",
        "GUESTKEY_SWEEP_INTERVAL": "2",
        "GUESTKEY_REDECIDE_INTERVAL": "1",
        "GUESTKEY_X509_CONNECTIONS": json.dumps({"records": {"host": "localhost", "port": free_port()}}),
    }
    with patch.dict(os.environ, variables):
        return load_settings()


@pytest.fixture(scope="session")
def parts(settings: Settings) -> Iterator[Parts]:
    """The parts of a web replica."""
    made = Parts.build(settings, identity="issuer")
    with made.database.transaction() as tx:
        install(tx, clock(tx))
    yield made
    made.close()


@pytest.fixture(scope="session")
def ender(settings: Settings, parts: Parts) -> Iterator[Parts]:
    """The parts of the worker."""
    made = Parts.build(settings, identity="ender")
    yield made
    made.close()


@pytest.fixture
def worker(settings: Settings, ender: Parts) -> Iterator[Worker]:
    """A running worker, as a thread."""
    running = Worker(ender, vault_of(settings, "setup"))
    thread = threading.Thread(target=running.run, name="worker")
    thread.start()
    yield running
    running.stop()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def stock(settings: Settings) -> Stock:
    """Slices that are real before a test asks for them."""
    return Stock(settings, CLINIC["connection"])


@pytest.fixture
def world(stack: Stack, settings: Settings, parts: Parts, ender: Parts, stock: Stock) -> Iterator[World]:
    """People, vendors and datasets made straight in the records; see `tests.support.world`."""
    made = World(stack, settings, parts, ender, stock)
    yield made
    made.leave()


@pytest.fixture(scope="session")
def ward(stack: Stack, settings: Settings) -> Iterator[Mariadb]:
    """MariaDB, connected; the settings of this run know it from then on."""
    with mariadb(stack.bao) as server:
        settings.connections("mariadb")[WARD_NAME] = MariadbConnection.model_validate(server.place)
        yield server


@pytest.fixture(scope="session")
def sftp(stack: Stack, settings: Settings, parts: Parts, ender: Parts) -> Iterator[SftpHost]:
    """Debian's sshd, which asks a replica of its own at every log-in; the settings of this run know it from then on."""
    from tests.web.conftest import Replica

    replica, secret = Replica(settings, parts), "host-" + "s" * 40
    replica.start()
    service = World(stack, settings, parts, ender).host_service(secret)
    authority = parts.vault.ssh_authority()
    try:
        with sftp_host(authority, replica.url, service, secret) as host:
            settings.connections("ssh")[CONNECTION] = SshConnection.model_validate(host.place)
            yield host
    finally:
        replica.stop()


@pytest.fixture
def provider() -> Iterator[Provider]:
    """An honest provider, on an address of its own."""
    running = Provider()
    running.start()
    yield running
    running.stop()
