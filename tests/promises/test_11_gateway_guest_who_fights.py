"""What a guest of a gateway can do to stay, or to hinder others: it ends all the same, and nobody waits.

`docs/guests-who-fight.md` has the whole list. nginx runs on the very files of `deploy/`, with its list kept by
guestkey-crl; only `worker_shutdown_timeout` is shorter.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from broker.base.settings import Settings
from broker.embedded.children import free_port
from broker.runtime.parts import Parts
from tests.support.certificates import GUEST, KIND, Admitted, admitting, signed
from tests.support.gate_fighting import CLINGING, GONE, Clinging, service
from tests.support.gateway import Gateway, ask, gateway
from tests.support.vpn import END, IN, REFUSED, vpn_folder, vpn_server
from tests.support.waiting import until
from tests.support.world import World
from tests.web.test_edge import running

# guestkey-crl.timer comes every ten seconds, and deploy/nginx gives what is open 20 s more; here it is 2 s.
TIMER_SECONDS, CUT_SHORT = 10, 20 - 2

# Those that no timeout of nginx ends.
BUSY = ("requests without a pause", "a download without an end", "an upload without an end", "a WebSocket")


@pytest.fixture(scope="module")
def gate(settings: Settings, parts: Parts) -> Iterator[Gateway]:
    """A gateway before a service whose downloads never end."""
    with (
        running(settings, parts) as replica,
        service() as port,
        gateway(replica.url, free_port(), parts.vault.ca_certificate()) as made,
    ):
        made.start(service=port)
        yield made


@pytest.fixture
def admit(world: World) -> Callable[..., Admitted]:
    """Issue for a slice behind the gateway."""
    return admitting(world)


def _end(world: World, one: Admitted) -> None:
    assert "revoked" in KIND.end(world.ender.vault, one.to_end())


def _clinging(gate: Gateway, pem: str, what: str, opened: ExitStack) -> Clinging:
    made = Clinging(gate.connect(pem, GUEST.key_pem), what)
    opened.callback(made.close)
    return made


def test_open_connections_end_and_other_guests_connect(
    world: World, gate: Gateway, admit: Callable[..., Admitted]
) -> None:
    one, other = admit(), admit()
    with ExitStack() as opened:
        open_ = [_clinging(gate, one.pem, what, opened) for what in CLINGING]
        time.sleep(1)
        assert [held.what for held in open_ if not held.is_open] == []
        began = time.monotonic()
        _end(world, one)
        assert gate.refresh().returncode == 0
        assert gate.get(other.pem, GUEST.key_pem)[0] == 200
        last = began + KIND.ending.open_sessions - TIMER_SECONDS - CUT_SHORT
        assert [held.what for held in open_ if not held.over(last)] == []
        assert gate.get(one.pem, GUEST.key_pem)[0] == 400


def test_reconnecting_in_a_loop_at_the_end_is_refused(
    world: World, gate: Gateway, admit: Callable[..., Admitted]
) -> None:
    one, stopping = admit(), threading.Event()
    let_in: list[float] = []

    def loop() -> None:
        while not stopping.is_set():
            if gate.get(one.pem, GUEST.key_pem)[0] == 200:
                let_in.append(time.monotonic())

    threads = [threading.Thread(target=loop, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(let_in) > 20, what="getting in")
        began = time.monotonic()
        _end(world, one)
        assert gate.refresh().returncode == 0
        time.sleep(1)
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)
    assert let_in[-1] - began < KIND.ending.new_sessions - TIMER_SECONDS
    assert gate.get(one.pem, GUEST.key_pem)[0] == 400


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_session_from_before_the_end_is_refused(
    world: World, gate: Gateway, admit: Callable[..., Admitted], version: ssl.TLSVersion
) -> None:
    one = admit()
    context = gate.context(one.pem, GUEST.key_pem)
    context.minimum_version = context.maximum_version = version
    with gate.wrapped(context) as first:
        assert ask(first)[0] == 200
        session = first.session
    with gate.wrapped(context, session) as again:
        # With a session taken up again no certificate is asked for, so the list is not looked at.
        assert ask(again)[0] == 200 and not again.session_reused
    _end(world, one)
    assert gate.refresh().returncode == 0
    try:
        with gate.wrapped(context, session) as late:
            assert ask(late)[0] != 200
    except GONE:
        return


def test_neither_early_data_nor_renegotiation_nor_http2_nor_cbc_is_offered(
    gate: Gateway, admit: Callable[..., Admitted]
) -> None:
    pem = gate.folder / "guest.pem"
    pem.write_text(admit().pem + "\n" + GUEST.key_pem.decode())
    start = ["openssl", "s_client", "-connect", f"127.0.0.1:{gate.port}", "-servername", "records.example"]
    given: dict[str, object] = {"capture_output": True, "text": True, "timeout": 30, "check": False}

    def said(*options: str, word: str) -> str:
        done = subprocess.run([*start, "-cert", pem, *options], input=word, **given)  # type: ignore[call-overload]
        return str(done.stdout + done.stderr)

    request = "GET / HTTP/1.1\r\nHost: records.example\r\nConnection: close\r\n\r\n"
    assert "Max Early Data: 0" in said("-tls1_3", "-ign_eof", word=request)
    assert "no renegotiation" in said("-tls1_2", word="R\n")
    assert "No ALPN negotiated" in said("-alpn", "h2", word="")
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in said("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256", word="")
    assert "handshake failure" in said("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256", word="")


def test_one_guest_leaves_others_room_among_connections(gate: Gateway, admit: Callable[..., Admitted]) -> None:
    one, other = admit(), admit()
    with ExitStack() as opened:
        for _ in range(40):
            _clinging(gate, one.pem, "a download without an end", opened)
        time.sleep(1)
        assert gate.get(one.pem, GUEST.key_pem)[0] == 429
        assert gate.get(other.pem, GUEST.key_pem)[0] == 200


def _aged(gate: Gateway) -> None:
    """As if the list had come, and been read, a while ago."""
    then = time.time() - 31
    for name in ("crl.pem", "crl.loaded.pem"):
        os.utime(gate.folder / name, (then, then))


def test_open_connections_end_without_the_broker(world: World, gate: Gateway) -> None:
    """Nothing gets on the list then; without it nginx goes on with a certificate that has run out."""
    brief, broker = signed(world, ttl="3s"), gate.broker
    with ExitStack() as opened:
        held = [_clinging(gate, brief, what, opened) for what in BUSY]
        time.sleep(4)
        assert [one.what for one in held if not one.is_open] == []
        gate.broker = f"http://127.0.0.1:{free_port()}"
        try:
            assert gate.refresh("true").returncode == 1
            assert all(one.is_open for one in held), "a word that was not heard ends nothing"
            _aged(gate)
            assert gate.refresh().returncode == 1
        finally:
            gate.broker = broker
        last = time.monotonic() + 2 + 5
        assert [one.what for one in held if not one.over(last)] == []


def test_connection_loop_does_not_exhaust_the_ocsp_limit(
    settings: Settings, parts: Parts, admit: Callable[..., Admitted]
) -> None:
    one, other = admit(), admit()
    with (
        running(settings, parts, rate_limit_per_minute=20) as replica,
        gateway(replica.url, free_port(), parts.vault.ca_certificate()) as made,
    ):
        made.start(ocsp=True)
        end = time.monotonic() + 10
        tried = [made.get(one.pem, GUEST.key_pem)[0] for _ in range(60) if time.monotonic() < end]
        assert len(tried) > 20 and set(tried) == {200}
        assert made.get(other.pem, GUEST.key_pem)[0] == 200
        assert made.refresh("true").returncode == 0


# -- OpenVPN --------------------------------------------------------------------------------------------------------


@pytest.fixture
def vpn(settings: Settings, parts: Parts) -> Iterator[Gateway]:
    """A folder as guestkey-crl keeps it for OpenVPN."""
    with running(settings, parts) as replica, vpn_folder(parts, replica.url) as made:
        yield made


def test_connection_without_renegotiation_is_checked_again(
    world: World, vpn: Gateway, admit: Callable[..., Admitted]
) -> None:
    one = admit()

    def sooner(lines: str) -> str:
        assert "reneg-sec 30" in lines
        return lines.replace("reneg-sec 30", "reneg-sec 3")

    slice_ = f"{one.lease.slice_id}:read"
    with vpn_server(vpn, slice_, sooner) as server, server.guest(one.pem, "--reneg-sec", "0", "--tran-window", "3600"):
        server.says(IN)
        _end(world, one)
        # A replica keeps the list it hands on for a second.
        time.sleep(1.1)
        assert vpn.refresh("true").returncode == 0
        server.says("certificate revoked")
        server.says("Connection reset, restarting", "TLS handshake failed")


def test_handshake_started_before_the_end_is_refused(
    world: World, vpn: Gateway, admit: Callable[..., Admitted]
) -> None:
    """OpenVPN reads its list when it makes ready for a handshake, and a guest may take its time over one."""
    one = admit()
    with vpn_server(vpn, f"{one.lease.slice_id}:read") as server:
        _end(world, one)
        # A replica keeps the list it hands on for a second.
        time.sleep(1.1)
        assert vpn.refresh(str(END), f"{vpn.folder}/notes", f"{vpn.folder}/crl.pem").returncode == 0
        with server.guest(one.pem):
            server.says(IN, REFUSED)
            assert IN not in server.log
