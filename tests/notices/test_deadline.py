"""One time limit for a whole message: names that are looked up slowly or never, and servers that drip."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Any

import pytest
from apprise.plugins.discord import NotifyDiscord

from broker.base.settings import Settings
from broker.models import Delivery
from broker.notices import channels
from broker.outbound import http_client as outward
from broker.outbound import smtp
from broker.outbound.deadline import AbandonableWork, Deadline
from broker.outbound.smtp import Mail, NotSent
from broker.runtime.parts import Parts
from tests.notices.conftest import Office
from tests.notices.test_channels import DISCORD
from tests.notices.test_mail import alarm, boss
from tests.notices.test_working import working

HELLO = Mail("dl_1", "ada@example.org", "Hello", "Hello", "/", datetime(2026, 11, 24, tzinfo=UTC))
# The head of a TLS record that is long in coming.
TLS = b"\x16\x03\x03\x40\x00"


@contextmanager
def dripping(first: bytes) -> Iterator[int]:
    """A server that says something, and then a byte every now and then. Yields its port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            line, _ = server.accept()
            with line:
                said = first
                while not done.wait(0.05):
                    try:
                        line.sendall(said)
                    except OSError:
                        return
                    said = b"2"

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join()


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Let `slow.example` be this machine, and be found so slowly; whatever still waits at the end is let go."""
    over, real, seconds = threading.Event(), socket.getaddrinfo, [0.0]

    def slow(host: Any, *given: Any, **more: Any) -> Any:
        if host == "slow.example":
            over.wait(seconds[0])
            host = "127.0.0.1"
        return real(host, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield lambda wanted: seconds.__setitem__(0, wanted)
    over.set()


def using(office: Office, seconds: float, port: int, security: str = "none") -> Settings:
    changes = {
        "smtp_host": "slow.example",
        "smtp_port": port,
        "smtp_security": security,
        "smtp_timeout": seconds,
        "notice_timeout": seconds,
        "notice_networks": [IPv4Network("127.0.0.0/8")],
    }
    return office.parts.settings.model_copy(update=changes)


SENDS: dict[str, tuple[bytes, Callable[[Settings], object]]] = {
    "mail": (b"220 ", lambda settings: smtp.send(settings, HELLO)),
    "mail over TLS": (TLS, lambda settings: smtp.send(settings.model_copy(update={"smtp_security": "tls"}), HELLO)),
    "webhook": (b"HTTP/1.1 ", lambda settings: post(settings, "http")),
    "webhook over TLS": (TLS, lambda settings: post(settings, "https")),
}


def post(settings: Settings, scheme: str) -> int:
    return outward.post(settings, f"{scheme}://slow.example:{settings.smtp_port}/", b"{}", {})


@pytest.mark.parametrize("way", SENDS)
def test_dns_time_counts_towards_the_time_limit(office: Office, slow_names: Callable[[float], None], way: str) -> None:
    first, send = SENDS[way]
    slow_names(0.3)
    with dripping(first) as port:
        began = time.monotonic()
        with pytest.raises(NotSent):
            send(using(office, 0.5, port))
        assert 0.4 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("way", ["mail", "webhook"])
def test_unresolvable_name_costs_only_the_time_limit(
    office: Office, slow_names: Callable[[float], None], way: str
) -> None:
    slow_names(60)
    began = time.monotonic()
    with pytest.raises(NotSent, match="TimeoutError"):
        SENDS[way][1](using(office, 0.3, 9))
    assert time.monotonic() - began < 1.5


def test_hanging_chat_costs_only_the_time_limit(
    office: Office, slow_names: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_names(60)
    monkeypatch.setattr(NotifyDiscord, "notify_url", "https://slow.example")
    delivery = Delivery(title="Hello", body="Hello", path="/")
    began = time.monotonic()
    with pytest.raises(NotSent, match="in time"):
        channels.send_chat(using(office, 0.3, 9), DISCORD, delivery)
    assert time.monotonic() - began < 1.5


def test_connection_after_the_deadline_is_closed() -> None:
    mine, other = socket.socketpair()
    with mine, other, Deadline(0.01) as deadline:
        deadline._watch.join()
        deadline.add(mine)
        assert other.recv(1) == b""
        with pytest.raises(TimeoutError):
            deadline.connect(["127.0.0.1"], 9)


def test_abandoned_threads_are_limited() -> None:
    aside, let_go = AbandonableWork(1), threading.Event()
    for _ in range(2):
        with Deadline(0.05) as deadline, pytest.raises(TimeoutError):
            aside.do(let_go.wait, deadline)
    let_go.set()
    with Deadline(5) as deadline:
        assert aside.do(lambda: "free again", deadline) == "free again"


def test_stopping_worker_does_not_wait_for_a_hanging_lookup(
    office: Office, slow_names: Callable[[float], None]
) -> None:
    slow_names(60)
    boss(office)
    alarm(office.world)
    asked = threading.Event()
    parts: Parts = replace(office.parts, settings=using(office, 0.5, 9))
    real = socket.getaddrinfo

    def noticed(host: Any, *given: Any, **more: Any) -> Any:
        if host == "slow.example":
            asked.set()
        return real(host, *given, **more)

    with pytest.MonkeyPatch.context() as patch, working(parts):
        patch.setattr(socket, "getaddrinfo", noticed)
        assert asked.wait(15)
        began = time.monotonic()
    assert time.monotonic() - began < 5
