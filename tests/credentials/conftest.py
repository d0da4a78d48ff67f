"""A gateway that asks guests for a certificate, and the replica it asks; a desk with an SFTP host behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.base.settings import Settings
from broker.kinds.s3.store import Store, key_of
from broker.runtime.parts import Parts
from tests.support.certificates import Admitted, Placed, admitting, place
from tests.support.data import BUCKET
from tests.support.gateway import NAME, Gateway, gateway
from tests.support.sftp_desk import Desk, open_desk
from tests.support.sshd import SftpHost
from tests.support.world import PICTURES, World
from tests.web.conftest import Replica


@pytest.fixture(scope="module")
def asked(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """The broker, as gateways reach it."""
    running = Replica(settings, parts)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gate(asked: Replica) -> Iterator[Gateway]:
    """A gateway on deploy/nginx, with the list kept by guestkey-crl; it lets in whoever may read any slice."""
    port = asked.settings.connections("x509")[NAME].port
    with gateway(asked.url, port, asked.parts.vault.ca_certificate()) as made:
        made.start()
        yield made


@pytest.fixture
def admit(world: World) -> Callable[..., Admitted]:
    """Issue for a slice behind the gateway."""
    return admitting(world)


@pytest.fixture
def placed(world: World) -> Placed:
    """A lease on a slice behind the gateway for ten minutes, and its own token."""
    return place(world)


@pytest.fixture
def desk(world: World, sftp: SftpHost, tmp_path: Path) -> Desk:
    """See `tests.support.sftp_desk`."""
    return open_desk(world, sftp, tmp_path)


@pytest.fixture
def bare(world: World) -> Iterator[None]:
    """A bucket without a policy, before and after."""
    store = Store(world.settings.place("s3", PICTURES), key_of(world.ender.vault, "objects", "ender"))
    store.put_policy(BUCKET, "")
    yield
    store.put_policy(BUCKET, "")
