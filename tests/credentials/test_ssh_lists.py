"""Lists of revoked leases for hosts that cannot ask: what they keep out, and what never takes their place."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.kinds.ssh.kind import NOBODY, SIGNING_KEY
from broker.runtime.parts import Parts
from tests.support.disks import fill, make_room, small_disk
from tests.support.sftp_desk import Desk, broker_of, configured
from tests.support.sshd import CONNECTION, SftpHost, install

# A version is when its list was made, in microseconds.
NOW = int(time.time() * 1_000_000)


def pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def listed(sftp: SftpHost, parts: Parts) -> Iterator[SftpHost]:
    """The host, going by its list alone."""
    _, versions = parts.vault.public_keys(SIGNING_KEY)
    key = sftp.prefix / "krl.pem"
    key.write_bytes(pem(Ed25519PublicKey.from_public_bytes(base64.b64decode(versions[1]))))
    broker, service = broker_of(sftp), setting(sftp, "SERVICE")
    install(sftp, broker, service, str(key), ONLY_KRL="1")
    sftp.stop()
    sftp.start()
    yield sftp
    (sftp.prefix / "etc/ssh/sshd_config.d/guestkey-krl.conf").unlink()
    install(sftp, broker, service)
    sftp.stop()
    sftp.start()


def setting(host: SftpHost, name: str) -> str:
    lines = (host.prefix / "etc/guestkey/host.conf").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))


def fetch(host: SftpHost) -> subprocess.CompletedProcess[str]:
    program = host.prefix / "usr/local/lib/guestkey/guestkey-krl"
    return subprocess.run([program], capture_output=True, text=True, timeout=30)


def kept(host: SftpHost) -> Path:
    return host.prefix / "etc/guestkey/revoked.krl"


@dataclass
class Pretender:
    """A server that answers as the broker would, or not."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    body: bytes = b""
    status: int = 200

    def say(
        self, krl: bytes, version: int, *, connection: str = CONNECTION, key: Ed25519PrivateKey | None = None
    ) -> None:
        """Answer with a list, signed."""
        encoded = base64.b64encode(krl).decode()
        self.sign(f"guestkey-krl/1\n{connection}\n{version}\n{encoded}\n", key)

    def sign(self, text: str, key: Ed25519PrivateKey | None = None) -> None:
        """Answer with any text, signed."""
        signature = (key or self.key).sign(text.encode())
        self.body = json.dumps({"signed": text, "signature": base64.b64encode(signature).decode()}).encode()


@pytest.fixture
def pretender(listed: SftpHost) -> Iterator[Pretender]:
    """Someone the host fetches from, and whose key it trusts, for one test."""
    made = Pretender()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(made.status)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    trusted = listed.prefix / "etc/guestkey/krl.pem"
    before = trusted.read_bytes()
    trusted.write_bytes(pem(made.key.public_key()))
    with configured(listed, setting(listed, "KRL_FROM"), f"http://127.0.0.1:{server.server_port}"):
        yield made
    trusted.write_bytes(before)
    server.shutdown()
    thread.join(5)
    server.server_close()
    kept(listed).unlink(missing_ok=True)
    assert fetch(listed).returncode == 0


def a_list(folder: Path, version: int, *key_ids: str) -> bytes:
    (folder / "ca.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH3Y2J6OTq3tD0+HHGnRjlXz8H99hwDbDz9wYozZH4uO\n")
    (folder / "spec").write_text("".join(f"id: {key_id}\n" for key_id in key_ids))
    command = ["ssh-keygen", "-q", "-k", "-f", "krl", "-s", "ca.pub", "-z", str(version), "spec"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "krl").read_bytes()


def test_krl_refuses_only_ended_leases(listed: SftpHost, desk: Desk) -> None:
    one, two = desk.issue(), desk.guest(second := desk.issue())
    desk.revoke(one)
    assert fetch(listed).returncode == 0
    shown = subprocess.run(["ssh-keygen", "-Q", "-l", "-f", kept(listed)], capture_output=True, text=True).stdout
    assert f"token-{one.lease.handle}" in shown and f"token-{second.lease.handle}" not in shown
    assert NOBODY in shown
    assert two.gets_in()
    guest = desk.guest(second)
    desk.revoke(second)
    assert guest.gets_in()
    assert fetch(listed).returncode == 0
    assert not guest.gets_in()


def test_missing_or_broken_krl_refuses_everyone(listed: SftpHost, desk: Desk) -> None:
    guest = desk.guest(desk.issue())
    assert fetch(listed).returncode == 0 and guest.gets_in()
    kept(listed).write_bytes(b"garbage")
    assert not guest.gets_in()
    kept(listed).unlink()
    assert not guest.gets_in()
    assert fetch(listed).returncode == 0 and guest.gets_in()


def test_only_a_newer_complete_signed_krl_replaces_it(listed: SftpHost, pretender: Pretender, tmp_path: Path) -> None:
    pretender.say(good := a_list(tmp_path, NOW + 2000, "token-a"), NOW + 2000)
    kept(listed).unlink()
    assert fetch(listed).returncode == 0 and kept(listed).read_bytes() == good
    newer, older = a_list(tmp_path, NOW + 3000, "token-b"), a_list(tmp_path, NOW + 1000, "token-c")
    bad: dict[str, Callable[[], None]] = {
        "older": lambda: pretender.say(older, NOW + 1000),
        "an older list that is said to be newer": lambda: pretender.say(older, NOW + 4000),
        "empty": lambda: pretender.say(b"", NOW + 3000),
        "cut off": lambda: pretender.say(newer[:-10], NOW + 3000),
        "only its head": lambda: pretender.say(newer[:20], NOW + 3000),
        "garbage": lambda: pretender.say(b"\0" * 100, NOW + 3000),
        "of another host": lambda: pretender.say(newer, NOW + 3000, connection="other"),
        "forged": lambda: pretender.say(newer, NOW + 3000, key=Ed25519PrivateKey.generate()),
        "with more behind it": lambda: pretender.sign(f"guestkey-krl/1\n{CONNECTION}\n{NOW + 3000}\nAAAA\nmore\n"),
        "of another kind": lambda: pretender.sign("guestkey-krl/2\n"),
        "no answer": lambda: setattr(pretender, "body", b""),
        "nonsense": lambda: setattr(pretender, "body", b"<html>"),
        "null": lambda: setattr(pretender, "body", b"null"),
    }
    for name, answer in bad.items():
        answer()
        done = fetch(listed)
        assert done.returncode == 1 and "no new list" in done.stderr, name
        assert kept(listed).read_bytes() == good, name
    for pretender.status in (500, 302, 401):
        pretender.say(newer, NOW + 3000)
        assert fetch(listed).returncode == 1 and kept(listed).read_bytes() == good
    pretender.status = 200
    pretender.say(newer, NOW + 3000)
    assert fetch(listed).returncode == 0 and kept(listed).read_bytes() == newer


def test_too_old_krl_is_removed(listed: SftpHost, pretender: Pretender, tmp_path: Path, desk: Desk) -> None:
    guest = desk.guest(desk.issue())
    pretender.status = 503
    assert fetch(listed).returncode == 1 and kept(listed).exists() and guest.gets_in()
    long_ago = time.time() - 901
    os.utime(kept(listed), (long_ago, long_ago))
    assert fetch(listed).returncode == 1 and not kept(listed).exists()
    assert not guest.gets_in()


def test_full_disk_keeps_the_old_krl_until_it_is_too_old(
    listed: SftpHost, pretender: Pretender, tmp_path: Path, desk: Desk
) -> None:
    """Taking it away needs no room, and without one nobody gets in."""
    version = int(time.time() * 1_000_000)
    pretender.say(a_list(tmp_path, version, "token-a"), version)
    with small_disk(kept(listed).parent, "size=256k,nr_inodes=100"):
        before = kept(listed).read_bytes()
        fill(kept(listed).parent)
        assert "No space left" in fetch(listed).stderr and kept(listed).read_bytes() == before
        long_ago = time.time() - 901
        os.utime(kept(listed), (long_ago, long_ago))
        assert fetch(listed).returncode == 1 and not kept(listed).exists()
        make_room(kept(listed).parent)
        assert fetch(listed).returncode == 0 and kept(listed).exists()


def test_krl_that_is_never_updated_becomes_too_old(
    listed: SftpHost, pretender: Pretender, tmp_path: Path, desk: Desk
) -> None:
    """Somebody in between could hide who ended since by saying again what the broker said once."""
    version = NOW - 901 * 1_000_000
    pretender.say(a_list(tmp_path, version, "token-a"), version)
    before = kept(listed).read_bytes()
    done = fetch(listed)
    assert done.returncode == 1 and "too old" in done.stderr
    assert kept(listed).read_bytes() == before


def test_endless_krl_answer_times_out(listed: SftpHost, tmp_path: Path) -> None:
    """A byte now and then breaks no timeout of a socket's."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.1)

        thread = threading.Thread(target=trickle)
        thread.start()
        program = tmp_path / "guestkey-krl"
        text = (listed.prefix / "usr/local/lib/guestkey/guestkey-krl").read_text()
        assert "LONGEST = 60\n" in text
        program.write_text(text.replace("LONGEST = 60\n", "LONGEST = 1\n"))
        long_ago = time.time() - 901
        os.utime(kept(listed), (long_ago, long_ago))
        with configured(listed, setting(listed, "KRL_FROM"), f"http://127.0.0.1:{server.getsockname()[1]}"):
            done = subprocess.run(["/usr/bin/python3", "-I", program], capture_output=True, text=True, timeout=20)
        thread.join(5)
    assert done.returncode == 1 and "takes too long" in done.stderr
    assert not kept(listed).exists()
    assert fetch(listed).returncode == 0
