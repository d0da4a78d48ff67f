"""The real servers, started once per run on free ports and stopped by process id; nothing is mocked."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
import structlog

from broker.base.database import now as clock
from broker.base.settings import Settings
from broker.embedded.children import free_port
from broker.embedded.stack import Stack
from broker.kinds.mariadb.connection import MariadbConnection
from broker.kinds.settings import load_settings
from broker.kinds.ssh.connection import SshConnection
from broker.migrations import upgrade
from broker.runtime.installation import install
from broker.runtime.parts import Parts, vault_of
from broker.worker.worker import Worker
from tests.support.data import make_clinic, make_pictures
from tests.support.mariadb import NAME as WARD_NAME
from tests.support.mariadb import Mariadb, mariadb
from tests.support.provider import Provider
from tests.support.sshd import CONNECTION, SftpHost, sftp_host
from tests.support.world import World


@pytest.fixture(scope="session", autouse=True)
def listening() -> Iterator[None]:
    """Let no logger keep what it was configured with: a later test may listen to it."""
    configure = structlog.configure

    def uncached(**given: Any) -> None:
        configure(**{**given, "cache_logger_on_first_use": False})

    with patch.object(structlog, "configure", uncached):
        yield


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """OpenBao, PostgreSQL and an object store, migrated, with a table and a bucket to make slices of."""
    # Not under pytest's own folders: PostgreSQL runs as another user when we are root, and must reach its data.
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        running = Stack(Path(folder))
        running.start()
        try:
            upgrade(running.postgres.url("owner", "guestkey"))
            make_clinic(running.postgres.url("postgres", "data"))
            make_pictures(running.store.client())
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    """The settings of a process on this stack, with limits a test run does not hit by accident."""
    variables = stack.environment() | {
        "GUESTKEY_RATE_LIMIT_PER_MINUTE": "100000",
        "GUESTKEY_RATE_LIMIT_ANONYMOUS_PER_MINUTE": "100000",
        "GUESTKEY_SWEEP_INTERVAL": "0.5",
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


@pytest.fixture
def world(stack: Stack, settings: Settings, parts: Parts, ender: Parts) -> World:
    """People, vendors and datasets made straight in the records; see `tests.support.world`."""
    return World(stack, settings, parts, ender)


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
