"""Debian's nginx on deploy/nginx, and the script that keeps its list: who is let in, and who no longer."""

from __future__ import annotations

import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.base.database import clock
from broker.embedded.children import StartFailed, free_port
from broker.revocation import ending
from tests.support.certificates import BINDING, GUEST, KIND, Admitted, signed
from tests.support.gateway import NAME, Authority, Gateway, ask, gateway, guest
from tests.support.world import World
from tests.web.conftest import Replica

SHUTDOWN_SECONDS = 2.0


def _end(world: World, one: Admitted) -> None:
    KIND.end(world.ender.vault, one.to_end())


def _tried(gate: Gateway, pem: str, key: bytes = GUEST.key_pem) -> int:
    return gate.get(pem, key)[0]


def test_gateway_passes_lease_and_slice_to_the_service(gate: Gateway, admit: Callable[..., Admitted]) -> None:
    one = admit()
    assert gate.get(one.pem, GUEST.key_pem) == (200, f"{one.lease.handle} {one.lease.slice_id}:read")


def test_identity_headers_sent_by_a_guest_are_removed(gate: Gateway, admit: Callable[..., Admitted]) -> None:
    one = admit()
    with gate.connect(one.pem, GUEST.key_pem) as connection:
        said = "X-Guestkey-Lease: another\r\nX-Guestkey-Slice: sl_another:write"
        assert ask(connection, more=said) == (200, f"{one.lease.handle} {one.lease.slice_id}:read")


def test_guest_of_a_suspended_vendor_is_refused_within_the_declared_time(world: World, gate: Gateway) -> None:
    vendor, admin = world.vendor(), world.person(roles=("admin",))
    dataset, signed_in = world.dataset(vendor, kind="x509", slices={"deidentified": BINDING}), world.person(vendor)
    world.grant(dataset, signed_in)
    handed = world.issue(signed_in, dataset, public_key=GUEST.request)
    assert handed.values is not None
    pem = handed.values["certificate"]
    assert _tried(gate, pem) == 200
    began = time.monotonic()
    with world.database.transaction() as tx:
        ending.suspend_vendor(tx, vendor.id, admin.caller, "a trial", clock(tx))
    world.wait_sweeping(handed.lease.id, "revoked")
    assert gate.refresh().returncode == 0
    assert _tried(gate, pem) == 400
    # The timer's ten seconds come on top.
    assert time.monotonic() - began + 10 < KIND.ending.new_sessions


def test_read_and_write_certificates_are_separate(gate: Gateway, admit: Callable[..., Admitted]) -> None:
    assert _tried(gate, admit("write").pem) == 403


def test_a_revoked_certificate_is_refused_once_the_list_is_fetched(
    world: World, gate: Gateway, admit: Callable[..., Admitted]
) -> None:
    one, other = admit(), admit()
    assert _tried(gate, one.pem) == 200
    _end(world, one)
    assert gate.refresh().returncode == 0
    assert (_tried(gate, one.pem), _tried(gate, other.pem)) == (400, 200)


def test_open_connections_end_when_the_revocation_list_has_new_entries(
    world: World, gate: Gateway, admit: Callable[..., Admitted]
) -> None:
    (gate.folder / "slow").write_bytes(b"x" * 400_000)
    one = admit()
    with gate.connect(one.pem, GUEST.key_pem) as idle, gate.connect(one.pem, GUEST.key_pem) as busy:
        assert ask(idle)[0] == 200
        busy.sendall(b"GET /slow HTTP/1.1\r\nHost: records.example\r\n\r\n")
        busy.settimeout(10)
        assert busy.recv(10)
        _end(world, one)
        began = time.monotonic()
        assert gate.refresh().returncode == 0
        assert not idle.recv(10)
        with _any_end():
            while busy.recv(65536):
                continue
        assert time.monotonic() - began < SHUTDOWN_SECONDS + 3


@contextmanager
def _any_end() -> Iterator[None]:
    """However the other side closed: with a word, without one, or with a reset."""
    try:
        yield
    except (ssl.SSLError, ConnectionError):
        return


def test_revocation_list_without_new_entries_causes_no_reload(
    world: World, gate: Gateway, admit: Callable[..., Admitted]
) -> None:
    assert gate.refresh().returncode == 0
    with gate.connect(admit().pem, GUEST.key_pem) as connection:
        _stays_open(world, gate, connection)


def _stays_open(world: World, gate: Gateway, connection: ssl.SSLSocket) -> None:
    assert ask(connection)[0] == 200
    before = gate.list.read_bytes()
    # To the second is how a list says when it was made.
    time.sleep(1.1)
    world.ender.vault.fresh_crl()
    assert gate.refresh().returncode == 0
    assert gate.list.read_bytes() != before
    assert ask(connection)[0] == 200


def test_tls_sessions_are_not_resumed(gate: Gateway, admit: Callable[..., Admitted]) -> None:
    context = gate.context(admit().pem, GUEST.key_pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with gate.wrapped(context) as first:
        assert ask(first)[0] == 200
        session = first.session
    with gate.wrapped(context, session) as second:
        assert ask(second)[0] == 200 and not second.session_reused


# -- who never is let in --------------------------------------------------------------------------------------------


def test_certificate_made_by_hand_like_ours_is_accepted(world: World, gate: Gateway) -> None:
    assert _tried(gate, signed(world)) == 200


def test_a_certificate_for_another_gateway_is_refused(world: World, gate: Gateway) -> None:
    assert _tried(gate, signed(world, role={"organization": ["vpn"]})) == 403
    assert _tried(gate, signed(world, role={"organization": [f"x,O={NAME}"]})) == 403


def test_another_subject_is_refused(world: World, gate: Gateway) -> None:
    anything = {"allow_any_name": True, "enforce_hostnames": False, "cn_validations": ["disabled"]}
    for name in ("root", "abc123-l1.lease.guestkey.internal.evil.example", "abc123-l1.lease.guestkey.internal,x"):
        assert _tried(gate, signed(world, role=anything, common_name=name)) == 403


def test_a_servers_certificate_is_refused(world: World, gate: Gateway) -> None:
    server = {"client_flag": False, "server_flag": True, "ext_key_usage": ["ServerAuth"]}
    assert _tried(gate, signed(world, role=server)) == 400


def test_an_expired_certificate_is_refused(world: World, gate: Gateway) -> None:
    brief = signed(world, ttl="2s")
    assert _tried(gate, brief) == 200
    time.sleep(3)
    assert _tried(gate, brief) == 400


def test_another_authoritys_certificate_is_refused(gate: Gateway) -> None:
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Guestkey guests")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(GUEST.key.public_key())
    now = datetime.now(UTC)
    builder = builder.serial_number(7).not_valid_before(now - timedelta(hours=1))
    made = builder.not_valid_after(now + timedelta(hours=1)).sign(key, hashes.SHA256())
    assert _tried(gate, made.public_bytes(Encoding.PEM).decode()) == 400


def test_certificate_without_its_private_key_is_refused(gate: Gateway, admit: Callable[..., Admitted]) -> None:
    with pytest.raises(ssl.SSLError):
        gate.connect(admit().pem, guest().key_pem)


def test_gateway_serves_only_its_configured_slice(world: World, asked: Replica, admit: Callable[..., Admitted]) -> None:
    one = admit()
    with gateway(asked.url, free_port(), asked.parts.vault.ca_certificate()) as made:
        made.start(slice_=f'!= "{one.lease.slice_id}:read"')
        assert _tried(made, one.pem) == 200
        assert _tried(made, signed(world)) == 403


# -- asking at each handshake ---------------------------------------------------------------------------------------


def test_ocsp_refuses_a_revoked_certificate_within_2_s_and_everyone_without_an_answer(
    world: World, asked: Replica, admit: Callable[..., Admitted]
) -> None:
    one, other = admit(), admit()
    with gateway(asked.url, free_port(), asked.parts.vault.ca_certificate()) as made:
        made.start(ocsp=True)
        assert _tried(made, one.pem) == 200
        _end(world, one)
        # As long as the relay keeps an answer.
        time.sleep(2.5)
        assert (_tried(made, one.pem), _tried(made, other.pem)) == (400, 200)
    with gateway(asked.url, free_port(), asked.parts.vault.ca_certificate()) as alone:
        alone.broker = f"http://127.0.0.1:{free_port()}"
        alone.start(ocsp=True)
        assert _tried(alone, other.pem) == 400


# -- the script that keeps the list ---------------------------------------------------------------------------------


@dataclass
class Pretender:
    """Answers for the broker, with whatever it is told to."""

    url: str
    answer: bytes
    overdue: bool = False


@pytest.fixture
def pretender() -> Iterator[Pretender]:
    """Somebody between gateway and broker."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(told.answer)))
            if told.overdue:
                self.send_header("Guestkey-Overdue", "yes")
            self.end_headers()
            self.wfile.write(told.answer)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    told = Pretender(f"http://127.0.0.1:{server.server_port}", b"")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield told
    server.shutdown()
    thread.join(5)
    server.server_close()


@dataclass
class Kept:
    """A folder as guestkey-crl keeps it, and a command that says how often it was run."""

    gate: Gateway
    authority: Authority

    def fetch(self) -> int:
        """Run the script; its exit code."""
        return self.gate.refresh("sh", "-c", f"echo >> {self.gate.folder}/reloads").returncode

    @property
    def reloads(self) -> int:
        """How often the gateway was told to reload."""
        file = self.gate.folder / "reloads"
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def kept(pretender: Pretender, tmp_path: Path) -> Kept:
    """A folder with the authority's certificate and a first list."""
    made = Kept(Gateway(tmp_path, pretender.url, 0), Authority())
    (tmp_path / "guests-ca.pem").write_bytes(made.authority.certificate())
    pretender.answer = made.authority.list(5, age=60)
    assert made.fetch() == 0 and made.reloads == 1
    return made


def test_newer_revocation_list_replaces_the_older(kept: Kept, pretender: Pretender) -> None:
    pretender.answer = kept.authority.list(5, 6)
    assert kept.fetch() == 0
    assert kept.gate.list.read_bytes() == pretender.answer and kept.reloads == 2
    assert kept.fetch() == 0 and kept.reloads == 2


def test_expiring_revocation_list_is_reloaded_without_new_entries(kept: Kept, pretender: Pretender) -> None:
    pretender.answer = kept.authority.list(5, age=50, good_for=800)
    assert kept.fetch() == 0 and kept.reloads == 1
    (kept.gate.folder / "crl.loaded.pem").write_bytes(pretender.answer)
    pretender.answer = kept.authority.list(5)
    assert kept.fetch() == 0 and kept.reloads == 2


def _aged(kept: Kept, *names: str) -> None:
    then = time.time() - 31
    for name in names:
        os.utime(kept.gate.folder / name, (then, then))


def test_overdue_leases_make_the_gateway_end_connections_every_30_s(kept: Kept, pretender: Pretender) -> None:
    _aged(kept, "crl.loaded.pem")
    assert kept.fetch() == 0 and kept.reloads == 1
    pretender.overdue = True
    assert kept.fetch() == 0 and kept.reloads == 2
    assert kept.fetch() == 0 and kept.reloads == 2
    _aged(kept, "crl.loaded.pem")
    assert kept.fetch() == 0 and kept.reloads == 3


@pytest.mark.parametrize("answer", [b"", b"<html>"])
def test_missing_revocation_list_makes_the_gateway_end_connections_every_30_s(
    kept: Kept, pretender: Pretender, answer: bytes
) -> None:
    pretender.answer = answer
    for aged in (["crl.pem"], ["crl.loaded.pem"]):
        # It came, or it was read, just now.
        assert kept.fetch() == 1 and kept.reloads == 1
        _aged(kept, *aged)
    assert kept.fetch() == 1 and kept.reloads == 2
    assert kept.fetch() == 1 and kept.reloads == 2


@pytest.mark.parametrize("worse", ["empty", "html", "cut", "forged", "older", "run out", "turned"])
def test_invalid_revocation_list_keeps_the_old_one(kept: Kept, pretender: Pretender, worse: str) -> None:
    before, good = kept.gate.list.read_bytes(), kept.authority.list()
    der = bytearray(x509.load_pem_x509_crl(good).public_bytes(Encoding.DER))
    der[-1] ^= 1
    pretender.answer = {
        "empty": b"",
        "html": b"<html>sign in first</html>",
        "cut": good[: len(good) // 2],
        "forged": Authority().list(),
        "older": kept.authority.list(age=3000),
        "run out": kept.authority.list(age=30, good_for=20),
        "turned": x509.load_der_x509_crl(bytes(der)).public_bytes(Encoding.PEM),
    }[worse]
    assert kept.fetch() != 0
    assert kept.gate.list.read_bytes() == before and kept.reloads == 1


def test_unreachable_broker_keeps_the_old_revocation_list(kept: Kept) -> None:
    before = kept.gate.list.read_bytes()
    kept.gate.broker = f"http://127.0.0.1:{free_port()}"
    assert kept.fetch() != 0 and kept.gate.list.read_bytes() == before


def test_failed_gateway_reload_is_repeated(kept: Kept, pretender: Pretender) -> None:
    pretender.answer = kept.authority.list(5, 6)
    assert kept.gate.refresh("false").returncode != 0
    assert kept.fetch() == 0 and kept.reloads == 2


def test_process_left_by_the_reload_command_does_not_block_fetching(kept: Kept, pretender: Pretender) -> None:
    pretender.answer = kept.authority.list(5, 6)
    folder = kept.gate.folder
    started = f"sleep 30 >/dev/null 2>&1 & echo $! > {folder}/left"
    assert kept.gate.refresh("sh", "-c", started).returncode == 0
    try:
        pretender.answer = kept.authority.list(5, 6, 7)
        assert kept.fetch() == 0
        assert kept.gate.list.read_bytes() == pretender.answer and kept.reloads == 2
    finally:
        os.kill(int((folder / "left").read_text()), signal.SIGTERM)


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_nginx_does_not_start_without_a_revocation_list(asked: Replica, how: str) -> None:
    with gateway(asked.url, free_port(), asked.parts.vault.ca_certificate()) as made:
        made.list.unlink()
        if how == "empty":
            made.list.touch()
        with pytest.raises(StartFailed):
            made.start()


@pytest.mark.whole
def test_expired_revocation_list_refuses_everyone(asked: Replica, pretender: Pretender) -> None:
    authority, now = Authority(), datetime.now(UTC)
    builder = x509.CertificateBuilder().issuer_name(authority.name).public_key(GUEST.key.public_key()).serial_number(9)
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, NAME),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "sl_abc:read"),
        x509.NameAttribute(NameOID.COMMON_NAME, "abc123-l1.lease.guestkey.internal"),
    ]
    builder = builder.subject_name(x509.Name(subject)).not_valid_before(now - timedelta(hours=1))
    made = builder.not_valid_after(now + timedelta(hours=1)).sign(authority.key, hashes.SHA256())
    pem = made.public_bytes(Encoding.PEM).decode()
    pretender.answer = authority.list(good_for=4)
    with gateway(pretender.url, free_port(), authority.certificate().decode()) as gate:
        gate.start()
        assert _tried(gate, pem) == 200
        time.sleep(5)
        assert _tried(gate, pem) == 400
