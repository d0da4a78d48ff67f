"""How long SFTP by certificate works: the next log-in, open transfers, a host that is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from broker.embedded.children import free_port
from broker.kinds.discovery import kinds
from broker.kinds.ssh.kind import account_of
from broker.kinds.values import BoundSlice, NotEnded
from broker.leases import reconciling
from broker.models import Lease
from broker.revocation import ending
from broker.worker.worker import Worker
from tests.support.sftp_desk import Desk, broker_of, configured, gone, open_desk
from tests.support.sshd import CONNECTION, SftpHost
from tests.support.world import World


def endless(file: Path) -> None:
    """More than is fetched while any test waits."""
    with file.open("wb") as made:
        made.truncate(1_000_000_000)


def test_lease_marked_for_ending_is_refused_at_the_next_login(desk: Desk) -> None:
    handed = desk.issue()
    guest = desk.guest(handed)
    assert guest.gets_in()
    desk.revoke(handed)
    assert not guest.gets_in()
    assert f"token-{handed.lease.handle}" not in desk.host.barred()


def test_open_transfer_is_ended_and_confirmed(desk: Desk) -> None:
    (desk.path() / "big").touch()
    with (desk.path() / "big").open("r+b") as file:
        file.truncate(1 << 32)
    handed = desk.issue()
    transfer = desk.guest(handed).transfer("big")
    bound = BoundSlice(desk.to_end(handed).binding, desk.to_end(handed).place)
    vault, tag = desk.world.ender.vault, desk.world.parts.tag
    assert handed.lease.handle in kinds["ssh"].list_credentials(vault, tag, [bound]).handles
    desk.revoke(handed)
    began = time.monotonic()
    assert kinds["ssh"].end(desk.world.ender.vault, desk.to_end(handed)) == "sftp host: barred, no session"
    assert gone(transfer) < 1
    assert time.monotonic() - began < kinds["ssh"].ending.open_sessions
    assert handed.lease.handle not in kinds["ssh"].list_credentials(vault, tag, [bound]).handles


def test_worker_ends_the_lease_and_records_the_confirmation(desk: Desk) -> None:
    handed = desk.issue()
    desk.revoke(handed)
    desk.world.wait_sweeping(handed.lease.id, "revoked")
    assert desk.world.lease(handed.lease.id).confirmed_by == "sftp host: barred, no session"


def test_two_guests_of_one_account_are_ended_separately(desk: Desk) -> None:
    endless(desk.path() / "big")
    one, two = [(handed, desk.guest(handed).transfer("big")) for _ in range(2) for handed in [desk.issue()]]
    desk.revoke(one[0])
    kinds["ssh"].end(desk.world.ender.vault, desk.to_end(one[0]))
    assert gone(one[1]) < 1
    assert two[1].poll() is None
    kinds["ssh"].end(desk.world.ender.vault, desk.to_end(two[0]))
    assert gone(two[1]) < 1


def test_session_without_a_lease_is_found_and_ended(desk: Desk) -> None:
    endless(desk.path() / "big")
    handed = desk.issue()
    transfer = desk.guest(handed).transfer("big")
    desk.world.change(Lease, handed.lease.id, state="revoked")
    found = reconciling.reconcile(desk.world.ender)
    assert handed.lease.id in [stray.lease for stray in found.strays if not stray.error]
    assert gone(transfer) < 1
    assert CONNECTION in found.shown["ssh"].asked


def test_logins_are_refused_while_the_broker_is_silent(desk: Desk) -> None:
    guest = desk.guest(desk.issue())
    broker = broker_of(desk.host)
    with configured(desk.host, broker, f"http://127.0.0.1:{free_port()}"):
        assert not guest.gets_in()
    # In the clear to anywhere but this machine would give the host's secret away.
    with configured(desk.host, broker, "http://broker.example"):
        assert not guest.gets_in()
    with configured(desk.host, f"BROKER={broker}", ""):
        assert not guest.gets_in()
    assert guest.gets_in()


def test_host_with_a_wrong_secret_or_name_gets_no_answer(desk: Desk) -> None:
    guest = desk.guest(desk.issue())
    secret = desk.host.prefix / "etc/guestkey/secret"
    before = secret.read_text()
    secret.write_text("wrong")
    assert not guest.gets_in()
    secret.write_text(before)
    with configured(desk.host, f"CONNECTION={CONNECTION}", "CONNECTION=other"):
        assert not guest.gets_in()


def test_host_ends_sessions_that_outlive_their_certificate(desk: Desk) -> None:
    endless(desk.path() / "big")
    handed = desk.issue()
    transfer = desk.guest(handed).transfer("big")
    (record,) = [
        file
        for file in (desk.host.prefix / "run/guestkey/sessions").iterdir()
        if handed.lease.handle in file.read_text()
    ]
    record.write_text(f"token-{handed.lease.handle} {int(time.time()) - 1}\n")
    assert gone(transfer) < 7


def test_guest_processes_outside_sessions_are_ended(desk: Desk) -> None:
    account = account_of(desk.issue().lease.slice_id, "read")
    stray = subprocess.Popen(
        ["setpriv", f"--reuid={account}", "--regid=guestkey-guests", "--clear-groups", "sleep", "60"]
    )
    assert gone(stray) < 7


def test_processes_left_by_a_dead_sshd_are_ended_before_confirming(desk: Desk) -> None:
    endless(desk.path() / "big")
    handed = desk.issue()
    transfer = desk.guest(handed).transfer("big")
    sessions = desk.host.prefix / "run/guestkey/sessions"
    (record,) = [file for file in sessions.iterdir() if handed.lease.handle in file.read_text()]
    monitor = int(record.name.partition(".")[0])
    os.kill(monitor, signal.SIGKILL)
    time.sleep(0.1)
    assert transfer.poll() is None, "what serves the transfer outlives the sshd that watches it"
    assert kinds["ssh"].end(desk.world.ender.vault, desk.to_end(handed)) == "sftp host: barred, no session"
    assert gone(transfer) < 1


def test_stale_session_record_does_not_end_another_process(desk: Desk) -> None:
    handed = desk.issue()
    bystander = subprocess.Popen(["sleep", "60"])
    started = Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19]
    forged = desk.host.prefix / f"run/guestkey/sessions/{bystander.pid}.{started}"
    forged.write_text(f"token-{handed.lease.handle} {int(time.time()) + 60}\n")
    kinds["ssh"].end(desk.world.ender.vault, desk.to_end(handed))
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait(5)


def test_suspending_a_vendor_ends_its_transfers(world: World, sftp: SftpHost, worker: Worker, tmp_path: Path) -> None:
    desk = open_desk(world, sftp, tmp_path, of_its_own=True)
    endless(desk.path() / "big")
    handed = [desk.issue() for _ in range(2)]
    transfer, guest = desk.guest(handed[1]).transfer("big"), desk.guest(handed[1])
    assert desk.signed.caller.vendor_id is not None
    with world.database.transaction() as tx:
        admin = world.person(roles=("admin",)).caller
        ending.suspend_vendor(tx, desk.signed.caller.vendor_id, admin, "Incident", world.now())
    assert gone(transfer) < kinds["ssh"].ending.open_sessions
    assert not guest.gets_in()
    for one in handed:
        ended = world.wait_for(one.lease.id, "revoked")
        assert (ended.confirmed_by, ended.end_cause) == ("sftp host: barred, no session", "vendor_suspended")


@pytest.fixture
def asked(desk: Desk) -> Iterator[list[str]]:
    """What the host asks of whoever it takes for the broker."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with configured(desk.host, broker_of(desk.host), f"http://127.0.0.1:{server.server_port}"):
        yield paths
    server.shutdown()
    thread.join(5)
    server.server_close()


def test_logins_with_an_ended_lease_do_not_load_the_broker(desk: Desk, asked: list[str]) -> None:
    handed = desk.issue()
    guest = desk.guest(handed)
    assert not guest.gets_in()
    assert asked, "of a living one the broker is asked"
    desk.host.hand("end", f"token-{handed.lease.handle}")
    asked.clear()
    assert not guest.gets_in()
    assert asked == []


@pytest.mark.parametrize(("valid", "asks"), [("-2h:-1h", False), ("-1h:+1h", True)])
def test_logins_with_an_expired_certificate_do_not_load_the_broker(
    desk: Desk, asked: list[str], tmp_path: Path, valid: str, asks: bool
) -> None:
    """Sshd asks this program before it looks at the certificate's end."""
    key_id = "token-abc123-l0123456789"
    for name in ("ca", "guest"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    command = ["ssh-keygen", "-q", "-s", "ca", "-I", key_id, "-n", "gk-xr", "-V", valid, "guest.pub"]
    subprocess.run(command, cwd=tmp_path, check=True)
    kind, certificate = (tmp_path / "guest-cert.pub").read_text().split()[:2]
    program = desk.host.prefix / "usr/local/lib/guestkey/guestkey-principals"
    done = subprocess.run([program, "gk-xr", key_id, kind, certificate], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert bool(asked) == asks


def test_host_that_cannot_bar_a_lease_ends_sessions_but_confirms_nothing(desk: Desk) -> None:
    """A full disk, or a folder that is gone."""
    handed = desk.issue()
    (desk.path() / "large").write_bytes(b"x" * 20_000_000)
    transfer = desk.guest(handed).transfer("large")
    folder = desk.host.prefix / "run/guestkey/barred"
    away = folder.with_name("away")
    folder.rename(away)
    try:
        with pytest.raises(NotEnded):
            kinds["ssh"].end(desk.world.ender.vault, desk.to_end(handed))
        gone(transfer)
    finally:
        away.rename(folder)
    assert "barred" in kinds["ssh"].end(desk.world.ender.vault, desk.to_end(handed))
