"""The worker as it runs: telling people goes on beside ending, and whatever hangs there holds up nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from broker.base.database import clock
from broker.revocation.ending import revoke_lease
from broker.runtime.parts import Parts
from broker.worker.worker import Worker
from tests.notices.conftest import Office
from tests.notices.test_mail import alarm, boss


@contextmanager
def working(parts: Parts) -> Iterator[None]:
    """A worker beside."""
    worker = Worker(parts, None)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_running_worker_sends_notices(office: Office) -> None:
    _, to = boss(office)
    alarm(office.world)
    with working(office.parts):
        end = time.monotonic() + 15
        while not office.server.to(to):
            assert time.monotonic() < end, "nothing was sent"
            time.sleep(0.05)


def test_hanging_mail_server_does_not_delay_ending(office: Office) -> None:
    world = office.world
    boss(office)
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    alarm(world)
    with socket.create_server(("localhost", 0)) as silent:
        changes = {"smtp_port": silent.getsockname()[1], "smtp_timeout": 30.0}
        with working(replace(office.parts, settings=office.parts.settings.model_copy(update=changes))):
            line, _ = silent.accept()
            with line:
                with world.database.transaction() as tx:
                    revoke_lease(tx, lease, signed.caller, "done", clock(tx))
                # Well before the mail server is given up.
                world.wait_for(lease.id, "revoked", seconds=10)
