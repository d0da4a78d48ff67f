"""Debian's OpenVPN on the lines of deploy/openvpn: who is let in, and who no longer. `dev null`: no network is made."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import KIND, Admitted, signed
from tests.support.gateway import NAME, Authority, Gateway
from tests.support.vpn import END, VERIFY, connects, vpn_folder
from tests.support.world import World
from tests.web.conftest import Replica


@pytest.fixture
def vpn(asked: Replica) -> Iterator[Gateway]:
    """A folder as guestkey-crl keeps it, and the server's own certificate."""
    with vpn_folder(asked.parts, asked.url) as made:
        yield made


def test_vpn_accepts_a_guest_until_revocation(world: World, vpn: Gateway, admit: Callable[..., Admitted]) -> None:
    one = admit()
    slice_ = f"{one.lease.slice_id}:read"
    assert connects(vpn, one.pem, f"sl_other:read {slice_}")
    (note,) = (vpn.folder / "notes").glob("*.guest")
    assert note.name == one.issued.values["serial"].replace(":", "").upper() + ".guest"
    assert note.read_text() == f"{one.lease.handle}.lease.guestkey.internal\n"
    assert "revoked" in KIND.end(world.ender.vault, one.to_end())
    assert vpn.refresh("true").returncode == 0
    assert not connects(vpn, one.pem, slice_)
    assert "certificate revoked" in (vpn.folder / "server.log").read_text()


def test_vpn_refuses_guests_of_other_slices_and_gateways(
    world: World, vpn: Gateway, admit: Callable[..., Admitted]
) -> None:
    one = admit()
    assert not connects(vpn, one.pem, "sl_other:read")
    assert not connects(vpn, signed(world, role={"organization": ["another"]}), "sl_byhand:read")
    assert not list((vpn.folder / "notes").iterdir())


SOUND = {"X509_0_CN": "abc123-l1.lease.guestkey.internal", "X509_0_O": NAME, "X509_0_OU": "sl_a:read"}


@pytest.mark.parametrize(
    ("changed", "let_in"),
    [
        ({}, True),
        ({"X509_0_CN": "root"}, False),
        ({"X509_0_CN": ""}, False),
        ({"X509_0_CN": "../../x.lease.guestkey.internal"}, False),
        ({"X509_0_CN": "a\nb.lease.guestkey.internal"}, False),
        ({"X509_0_O": "another"}, False),
        ({"X509_0_OU": "sl_a:write"}, False),
        ({"X509_0_OU": ""}, False),
        ({"X509_0_OU": "sl_a:read sl_b:read"}, False),
        ({"tls_serial_hex_0": ""}, False),
        ({"tls_serial_hex_0": "../x"}, False),
    ],
)
def test_vpn_script_refuses_everything_else(tmp_path: Path, changed: dict[str, str], let_in: bool) -> None:
    told = {"PATH": "/usr/bin:/bin", **SOUND, "tls_serial_hex_0": "0a:bc", **changed}
    done = subprocess.run([VERIFY, tmp_path, NAME, "sl_a:read", "sl_b:read", "0", "O=x"], env=told, check=False)
    assert (done.returncode == 0) == let_in
    assert {note.name for note in tmp_path.iterdir()} == ({"0ABC.guest", "tidied"} if let_in else set())


def _verify(folder: Path, serial: str = "0a:bc") -> int:
    told = {"PATH": "/usr/bin:/bin", **SOUND, "tls_serial_hex_0": serial}
    return subprocess.run([VERIFY, folder, NAME, "sl_a:read", "0", "O=x"], env=told, check=False).returncode


def _aged(file: Path, hours: float, text: str = "abc123-l9.lease.guestkey.internal\n") -> Path:
    file.write_text(text)
    then = time.time() - 3600 * hours
    os.utime(file, (then, then))
    return file


def test_notes_of_expired_certificates_are_removed_hourly(tmp_path: Path) -> None:
    notes, elsewhere = tmp_path / "notes", tmp_path / "elsewhere"
    notes.mkdir(mode=0o700)
    elsewhere.mkdir()
    over = [_aged(notes / name, 25.1) for name in ("0AB1.guest", "AB1.ended", "broken-off.new")]
    kept = [_aged(notes / "0AB2.guest", 24.9), _aged(notes / "server.conf", 99), _aged(elsewhere / "0AB3.guest", 99)]
    links = [notes / "0AB4.guest", notes / "0AB5.guest"]
    links[0].symlink_to(kept[-1])
    links[1].symlink_to(elsewhere, target_is_directory=True)
    # Of the one who comes now, too: it is in use again.
    mine = _aged(notes / "0ABC.guest", 99)
    assert _verify(notes) == 0
    assert not any(note.exists() for note in over)
    assert all(file.exists() for file in [*kept, *links, mine])
    assert mine.read_text() == SOUND["X509_0_CN"] + "\n"
    late = _aged(notes / "0AB6.guest", 25.1)
    assert _verify(notes) == 0 and late.exists()
    _aged(notes / "tidied", 1.1)
    assert _verify(notes) == 0 and not late.exists()


def test_older_revocation_list_does_not_readmit_a_guest(tmp_path: Path) -> None:
    assert _verify(tmp_path) == 0 and _verify(tmp_path, "0a:bd") == 0
    (tmp_path / "0ABC.guest").unlink()
    (tmp_path / "crl.pem").write_bytes(Authority().list(0xABC))
    assert subprocess.run([END, tmp_path, tmp_path / "crl.pem"], check=False, timeout=20).returncode == 0
    assert _verify(tmp_path) != 0 and _verify(tmp_path, "0a:bd") == 0
    # It made a note before it was refused, so that the next round puts out whoever had passed.
    assert (tmp_path / "0ABC.guest").exists()


def test_note_replaces_a_symlink_without_following_it(tmp_path: Path) -> None:
    notes, victim = tmp_path / "notes", tmp_path / "victim"
    notes.mkdir(mode=0o700)
    victim.write_text("as it was")
    for name in ("0ABC.guest", "tidied"):
        (notes / name).symlink_to(victim)
    os.utime(notes / "tidied", (0, 0), follow_symlinks=False)
    assert _verify(notes) == 0
    assert victim.read_text() == "as it was"
    assert not any((notes / name).is_symlink() for name in ("0ABC.guest", "tidied"))
    assert (notes / "0ABC.guest").read_text() == SOUND["X509_0_CN"] + "\n"


def test_unwritable_folder_refuses_everyone(tmp_path: Path) -> None:
    """Who is in unnoted could not be put out."""
    assert _verify(tmp_path / "missing") != 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[list[str]]:
    """An OpenVPN server's management socket; what it was told."""
    told: list[str] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "server.sock"))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", newline="\r\n") as lines:
            lines.write(">INFO:OpenVPN Management Interface Version 5\r\n")
            lines.flush()
            for line in lines:
                told.append(line.strip())
                lines.write("SUCCESS: common name found, 1 client(s) killed\r\n")
                lines.flush()

    thread = threading.Thread(target=serve)
    thread.start()
    yield told
    thread.join(10)
    listener.close()


def test_only_revoked_guests_are_disconnected(tmp_path: Path, server: list[str]) -> None:
    (tmp_path / "crl.pem").write_bytes(Authority().list(0xABC))
    for serial, name in (("0ABC", "abc123-l1"), ("0ABD", "abc123-l2")):
        (tmp_path / f"{serial}.guest").write_text(f"{name}.lease.guestkey.internal\n")
    done = subprocess.run([END, tmp_path, tmp_path / "crl.pem"], check=False, timeout=20)
    assert done.returncode == 0 and server == ["kill abc123-l1.lease.guestkey.internal"]
    assert {note.name for note in tmp_path.glob("*.guest")} == {"0ABD.guest"}


def test_silent_management_interface_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "crl.pem").write_bytes(Authority().list(0xABC))
    (tmp_path / "0ABC.guest").write_text("abc123-l1.lease.guestkey.internal\n")
    assert subprocess.run([END, tmp_path, tmp_path / "crl.pem"], check=False, capture_output=True).returncode == 1
    assert (tmp_path / "0ABC.guest").exists()


@pytest.mark.parametrize("said", [b"", b">INFO:OpenVPN Management Interface Version 5\r\n"])
def test_closed_management_connection_is_an_error(tmp_path: Path, said: bytes) -> None:
    """As it does when it restarts; guestkey-crl, which waits for this, must not wait for ever."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "server.sock"))
    listener.listen(1)

    def hang_up() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(said)
            connection.recv(100)

    (tmp_path / "crl.pem").write_bytes(Authority().list(0xABC))
    (tmp_path / "0ABC.guest").write_text("abc123-l1.lease.guestkey.internal\n")
    thread = threading.Thread(target=hang_up)
    thread.start()
    done = subprocess.run(
        [END, tmp_path, tmp_path / "crl.pem"], check=False, capture_output=True, text=True, timeout=20
    )
    thread.join(10)
    listener.close()
    assert done.returncode == 1 and "hung up" in done.stderr
    assert (tmp_path / "0ABC.guest").exists()


@pytest.mark.whole
def test_management_interface_without_an_answer_times_out(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "server.sock"))
    listener.listen(1)

    def talk() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            while True:
                connection.sendall(b">BYTECOUNT:1,1\r\n")
                time.sleep(0.2)

    (tmp_path / "crl.pem").write_bytes(Authority().list(0xABC))
    (tmp_path / "0ABC.guest").write_text("abc123-l1.lease.guestkey.internal\n")
    thread = threading.Thread(target=talk)
    thread.start()
    done = subprocess.run([END, tmp_path, tmp_path / "crl.pem"], check=False, capture_output=True, timeout=20)
    thread.join(10)
    listener.close()
    assert done.returncode != 0
    assert (tmp_path / "0ABC.guest").exists()
