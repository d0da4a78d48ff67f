"""Tokens of a suspended vendor: every replica's introspection refuses them within a second of the suspension."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from broker.embedded.children import free_port
from tests.oauth.conftest import Program
from tests.support.waiting import answered
from tests.support.world import World
from tests.web.conftest import Replica

REPLICAS = 3
WITHIN = 1.0


@contextmanager
def process(world: World, public_url: str) -> Iterator[httpx.Client]:
    """A replica in a process of its own, behind the same public address as the others."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("guestkey")), "serve", "--port", str(port)]
    limits = dict.fromkeys(("GUESTKEY_RATE_LIMIT_PER_MINUTE", "GUESTKEY_RATE_LIMIT_ANONYMOUS_PER_MINUTE"), "1000000")
    variables = {**os.environ, **world.stack.environment(), **limits, "GUESTKEY_PUBLIC_URL": public_url}
    running = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host = public_url.removeprefix("http://")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Host": host}, timeout=20) as client:
            answered(f"http://127.0.0.1:{port}/readyz", running, headers={"Host": host})
            yield client
    finally:
        running.terminate()
        running.wait(30)


@pytest.fixture
def others(world: World, replica: Replica) -> Iterator[list[httpx.Client]]:
    """The replicas besides the first."""
    with ExitStack() as running:
        yield [running.enter_context(process(world, replica.url)) for _ in range(REPLICAS - 1)]


class Asking(threading.Thread):
    """Introspects one token at one replica without pause; keeps when each question was put and what was said."""

    def __init__(self, client: httpx.Client, guard: Program, token: str) -> None:
        super().__init__()
        self._client, self._guard, self._token = client, guard, token
        self._stopping = threading.Event()
        self.said: list[tuple[float, bool]] = []

    def run(self) -> None:
        """Ask until stopped."""
        while not self._stopping.is_set():
            began = time.monotonic()
            form = {"token": self._token}
            answer = self._client.post("/oauth/introspect", data=form, auth=(self._guard.id, self._guard.secret))
            self.said.append((began, answer.json()["active"]))

    def stop(self) -> None:
        """Stop asking."""
        self._stopping.set()
        self.join(20)


def test_every_replica_refuses_a_suspended_vendors_token_within_a_second(
    world: World, others: list[httpx.Client], guard: Program, pipeline: Program, http: httpx.Client
) -> None:
    admin = world.person(roles=("admin",))
    token = str(pipeline.signed()["access_token"])
    asking = [Asking(client, guard, token) for client in (http, *others)]
    for one in asking:
        one.start()
    # A replica's first answer takes a while; each has said once that the token is good before it is to say otherwise.
    end = time.monotonic() + 30
    while not all(one.said for one in asking):
        assert time.monotonic() < end, "a replica answers nothing"
        time.sleep(0.05)
    before = [list(one.said) for one in asking]
    path = f"/api/v1/vendors/{pipeline.signed_in.caller.vendor_id}/suspend"
    answer = http.post(path, json={"reason": "an incident"}, headers=admin.headers)
    answered = time.monotonic()
    assert answer.status_code == 202, answer.text
    time.sleep(1.5)
    for one in asking:
        one.stop()
    assert all(active for said in before for _, active in said), "it was good on every replica"
    for one in asking:
        late = [began - answered for began, active in one.said if active and began > answered]
        assert not late or max(late) < WITHIN, f"still active {max(late):.3f} s after the suspension was answered"
        assert one.said[-1][1] is False
    for client in (http, *others):
        again = client.post(
            "/oauth/token",
            data={"grant_type": "client_credentials", "resource": pipeline.resource},
            auth=(pipeline.id, pipeline.secret),
        )
        assert again.status_code in (401, 403), again.text
