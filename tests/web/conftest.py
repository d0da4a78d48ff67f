"""A real replica on a free port, spoken to over HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
import uvicorn
from pydantic import HttpUrl

from broker.base.settings import Settings
from broker.identity.http import SESSION_COOKIE
from broker.runtime.parts import Parts
from broker.web import connections
from broker.web.app import create_app
from tests.support.browser import Browser
from tests.support.world import Signed, World

ClientOf = Callable[[Signed | None], httpx.Client]
BrowserOf = Callable[[Signed], Browser]


class Replica:
    """A running web replica; `url` is its public address."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.settings = settings.model_copy(update={"public_url": HttpUrl(self.url)})
        # Links, cookies and passkeys are made of the parts' own settings.
        self.parts = replace(parts, settings=self.settings)
        self.app = create_app(self.settings, self.parts)
        config = uvicorn.Config(self.app, **connections.options())
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="replica")

    def start(self) -> None:
        """Serve, and return once it answers."""
        self._thread.start()
        end = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < end and self._thread.is_alive(), "the replica did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._socket.close()


@contextmanager
def apart(settings: Settings) -> Iterator[Replica]:
    """A replica with parts of its own, for settings that lead elsewhere: breakers opened there stay there."""
    parts = Parts.build(settings, identity="issuer")
    running = Replica(settings, parts)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        parts.close()


@pytest.fixture(scope="session")
def replica(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """The replica most tests speak to."""
    running = Replica(settings, parts)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def browser_of(replica: Replica, world: World) -> Iterator[BrowserOf]:
    """Browsers without a screen, each signed in as somebody whose second factor is fresh."""
    browsers: list[Browser] = []

    def make(signed: Signed) -> Browser:
        browsers.append(Browser(replica.url, {"Accept": "text/html"}))
        browsers[-1].cookies[SESSION_COOKIE] = world.session(signed)
        browsers[-1].csrf = browsers[-1].api("GET", "/me").json()["csrf_token"]
        return browsers[-1]

    yield make
    for browser in browsers:
        browser.close()


@pytest.fixture
def client_of(replica: Replica) -> Iterator[ClientOf]:
    """Clients of the API, one for each caller (None: nobody)."""
    clients: list[httpx.Client] = []

    def make(signed: Signed | None) -> httpx.Client:
        headers = signed.headers if signed else {}
        clients.append(httpx.Client(base_url=f"{replica.url}/api/v1", headers=headers, timeout=20))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
