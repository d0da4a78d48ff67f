"""`guestkey serve` over TLS: what it refuses to serve with, who may connect, and a certificate renewed under way."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
import trustme
import uvicorn

from broker.embedded.children import free_port
from broker.embedded.stack import Stack
from broker.operator import serve as serving
from broker.runtime.parts import Parts
from tests.operator.conftest import command
from tests.support.waiting import answered

RUN = [sys.executable, "-c", "from broker.operator.main import app; app(prog_name='guestkey')"]
# Every address of this machine.
EVERYWHERE = str(IPv4Address(0))
Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of this test's own."""
    return trustme.CA()


@pytest.fixture
def serve(stack: Stack, parts: Parts) -> Iterator[Serve]:
    """Start `guestkey serve`; stopped afterwards, by process id."""
    assert parts.tag
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **stack.environment(), **variables}
        child = subprocess.Popen(
            [*RUN, "serve", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=10)


def written(
    authority: trustme.CA, folder: Path, *names: str, begins: datetime | None = None, ends: datetime | None = None
) -> list[str]:
    """A certificate of the authority in files; the arguments that serve with it."""
    issued = authority.issue_cert(*names, not_before=begins, not_after=ends)
    certificate, key = folder / "web.crt", folder / "web.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    return ["--tls-cert", str(certificate), "--tls-key", str(key)]


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client that knows the authority verifies with."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serial_of(port: int, context: ssl.SSLContext) -> str:
    """The serial number of the certificate served now."""
    with (
        socket.create_connection(("localhost", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        found = secured.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


def answering(serve: Serve, authority: trustme.CA, folder: Path) -> tuple[int, subprocess.Popen[str], ssl.SSLContext]:
    """A replica that serves TLS: its port, its process, and what believes its certificate."""
    port = free_port()
    public = {"GUESTKEY_PUBLIC_URL": f"https://localhost:{port}"}
    child = serve("--port", str(port), *written(authority, folder, "localhost"), **public)
    context = trusting(authority)
    answered(f"https://localhost:{port}/healthz", child, verify=context)
    return port, child, context


def test_serve_reloads_a_renewed_certificate(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    port, child, context = answering(serve, authority, tmp_path)
    answer = httpx.get(f"https://localhost:{port}/healthz", verify=context)
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert httpx.get(f"https://localhost:{port}/sign-in", verify=context).status_code == 200, "as https, to us as well"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://localhost:{port}/healthz")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{port}/healthz")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(old)
    with pytest.warns(DeprecationWarning):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        serial_of(port, old)
    cbc, gcm = trusting(authority), trusting(authority)
    cbc.maximum_version = gcm.maximum_version = ssl.TLSVersion.TLSv1_2
    cbc.set_ciphers(
        "ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA384"
    )
    with pytest.raises(ssl.SSLError):
        serial_of(port, cbc)
    assert serial_of(port, gcm), "TLS 1.2 with authenticated encryption is taken"
    before = serial_of(port, context)
    (tmp_path / "web.crt").write_text("half-written")
    time.sleep(2.5)
    assert serial_of(port, context) == before, "a wrong pair leaves the one before in use"
    written(authority, tmp_path, "localhost")
    end = time.monotonic() + 60
    while serial_of(port, context) == before:
        assert time.monotonic() < end
        time.sleep(0.2)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) in (0, -signal.SIGTERM)


def shaken_hands(served: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> str:
    """The serial number that a client is shown, both sides in this process."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname=name)
    answering = served.wrap_bio(there, back, server_side=True)
    open_sides = [asking, answering]
    while open_sides:
        for side in tuple(open_sides):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
                open_sides.remove(side)
    found = asking.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


@pytest.mark.parametrize("name", ["localhost", None])
def test_no_handshake_fails_while_a_certificate_is_renewed(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setattr(serving, "LOOK_EVERY_SECONDS", 0.001)
    written(authority, tmp_path, "localhost")
    files = serving.CertificateFiles(tmp_path / "web.crt", tmp_path / "web.key")
    served = serving.ContextFactory(files)(uvicorn.Config("none"), ssl.create_default_context)
    client = trusting(authority)
    client.check_hostname = name is not None
    seen: set[str] = set()
    for number in range(5):
        if number:
            written(authority, tmp_path, "localhost")
        end = time.monotonic() + 60
        while len(seen) == number:
            assert time.monotonic() < end
            seen.add(shaken_hands(served, client, name))


def test_unfinished_handshake_times_out(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    port, _, context = answering(serve, authority, tmp_path)
    begun = time.monotonic()
    with (
        socket.create_connection(("localhost", port), timeout=45) as silent,
        socket.create_connection(("localhost", port), timeout=45) as half,
    ):
        half.sendall(_hello()[:60])
        assert ended(silent) and ended(half), "well before the loop's own minute"
    assert time.monotonic() - begun < 45
    assert httpx.get(f"https://localhost:{port}/healthz", verify=context).status_code == 200


def _hello() -> bytes:
    """The first bytes a TLS client sends."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def ended(connection: socket.socket) -> bool:
    """Whether the server closes it before the connection's timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("wrong", ["missing", "no PEM", "expired", "not yet", "another key", "open key", "no key"])
def test_invalid_tls_files_are_refused(stack: Stack, authority: trustme.CA, tmp_path: Path, wrong: str) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    spans = {
        "expired": {"begins": now - 2 * day, "ends": now - day},
        "not yet": {"begins": now + day, "ends": now + 2 * day},
    }
    arguments = written(authority, tmp_path, "localhost", **spans.get(wrong, {}))
    if wrong == "missing":
        (tmp_path / "web.crt").unlink()
    elif wrong == "no PEM":
        (tmp_path / "web.crt").write_text("a certificate, on my word")
    elif wrong == "another key":
        (tmp_path / "web.key").write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())
    elif wrong == "open key":
        (tmp_path / "web.key").chmod(0o644)
    elif wrong == "no key":
        arguments = arguments[:2]
    refused = command(["serve", "--port", str(free_port()), *arguments], stack.environment())
    assert (refused.returncode, refused.stdout) == (1, "")
    lines = [line for line in refused.stderr.splitlines() if line.startswith("guestkey: ")]
    assert len(lines) == 1, refused.stderr
    assert "TLS" in lines[0]


def test_without_tls_only_localhost_is_served(stack: Stack) -> None:
    refused = command(["serve", "--host", EVERYWHERE, "--port", str(free_port())], stack.environment())
    assert refused.returncode == 1
    assert "without TLS" in refused.stderr and "GUESTKEY_TRUSTED_PROXIES" in refused.stderr
    behind = stack.environment() | {"GUESTKEY_PUBLIC_URL": "https://guestkey.example"}
    unnamed = command(["serve", "--port", str(free_port())], behind)
    assert unnamed.returncode == 1
    assert "nothing would be answered" in unnamed.stderr and "GUESTKEY_TRUSTED_PROXIES" in unnamed.stderr


def test_trusted_proxy_terminates_tls(serve: Serve) -> None:
    port = free_port()
    child = serve("--host", EVERYWHERE, "--port", str(port), GUESTKEY_TRUSTED_PROXIES='["192.0.2.0/24"]')
    answered(f"http://127.0.0.1:{port}/healthz", child)
