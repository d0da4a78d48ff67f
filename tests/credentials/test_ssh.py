"""SFTP by certificate, from the story of issuing to Debian's sshd: what a guest can do, and cannot make of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker.base.errors import BackendDown
from broker.embedded.children import free_port
from broker.keystore.vault import VaultRefused
from broker.kinds.ssh.kind import SshKind, account_of, role_definition
from broker.kinds.ssh.public_keys import Certificate
from tests.support.sftp_desk import Desk, authority, signed_again
from tests.support.sshd import key_pair


def test_reader_can_only_read(desk: Desk) -> None:
    guest = desk.guest(handed := desk.issue())
    assert "lease.used" not in desk.world.events(handed.lease.id)
    assert guest.sftp("get hello.txt").returncode == 0
    # A log-in asks twice, and is one use.
    assert desk.world.events(handed.lease.id).count("lease.used") == 1
    assert (guest.folder / "hello.txt").read_text() == "labels\n"
    tried = ("put guestkey in/x", "mkdir in/y", "rm hello.txt", "rename hello.txt in/h", "chmod 777 hello.txt")
    # With a dash sftp goes on after what failed.
    done = guest.sftp(*(f"-{command}" for command in tried))
    assert done.stderr.count("Permission denied") == len(tried), done.stderr
    assert list((desk.path() / "in").iterdir()) == []


def test_writer_can_write_into_its_slice(desk: Desk) -> None:
    guest = desk.guest(desk.issue("labels", "write"))
    (guest.folder / "done.csv").write_text("a,b\n")
    assert guest.sftp("put done.csv in/done.csv").returncode == 0
    assert (desk.path("labels") / "in/done.csv").read_text() == "a,b\n"


def test_guest_sees_only_its_directory(desk: Desk) -> None:
    guest, other = desk.guest(desk.issue()), desk.names["labels"]
    beyond = ("/etc/passwd", "../../../etc/passwd", f"/{other}/hello.txt", f"../{other.split('/')[1]}/hello.txt")
    shown = guest.sftp("cd ..", "cd /..", "pwd", "ls", *(f"-get {path} taken" for path in beyond))
    assert "Remote working directory: /" in shown.stdout and "hello.txt" in shown.stdout
    assert shown.stderr.count("not found") == len(beyond), shown.stderr
    assert not (guest.folder / "taken").exists()


def test_shell_terminal_and_forwarding_are_refused(desk: Desk) -> None:
    guest, port, socket = desk.guest(desk.issue()), free_port(), f"{desk.folder}/socket"
    target = f"127.0.0.1:{desk.host.port}"
    done = guest.ssh("-A", "-R", f"{port}:{target}", "-R", f"{socket}:{target}", "HOST", "id")
    assert done.returncode and "This service allows sftp connections only." in done.stdout
    assert done.stderr.count("remote port forwarding failed") == 2, done.stderr
    assert not Path(socket).exists()
    tty = guest.ssh("-tt", "HOST")
    assert tty.returncode and "PTY allocation request failed" in tty.stderr and not tty.stdout
    assert "administratively prohibited" in guest.ssh("-W", target, "HOST").stderr
    assert "subsystem request failed" in guest.ssh("-s", "HOST", "netconf").stderr


def test_certificate_contains_exactly_what_was_granted(desk: Desk) -> None:
    handed = desk.issue()
    assert handed.values is not None
    made = Certificate.read(handed.values["certificate"])
    assert made.key_id == f"token-{handed.lease.handle}"
    assert made.principals == (account_of(handed.lease.slice_id, "read"),) == (handed.values["user"],)
    assert made.critical_options == {"force-command": "internal-sftp -R"} and made.extensions == ()
    assert 0 <= made.valid_until - handed.lease.expires_at.timestamp() <= 61
    assert handed.values["host_key"] == f"[127.0.0.1]:{desk.host.port} {desk.host.host_key}"
    # The dataset and the vendor are in none of the names.
    assert desk.dataset.slug not in handed.values["certificate"] + handed.values["user"]


def test_unknown_host_gets_no_certificate(desk: Desk) -> None:
    connections = desk.world.settings.connections("ssh")
    known = dict(connections)
    connections.clear()
    try:
        with pytest.raises(BackendDown, match="no longer in the settings"):
            desk.issue()
    finally:
        connections.update(known)


def test_network_of_the_rule_is_in_the_certificate(desk: Desk) -> None:
    service = desk.world.service(None)
    desk.world.grant(desk.dataset, service, "pipeline")
    handed = desk.issue(signed=service)
    assert handed.values is not None
    options = Certificate.read(handed.values["certificate"]).critical_options
    assert options == {"force-command": "internal-sftp -R", "source-address": "127.0.0.0/8,::1/128"}
    assert desk.guest(handed).gets_in()


def test_host_refuses_a_certificate_from_another_network(desk: Desk) -> None:
    handed = desk.issue()
    certificate = signed_again(desk, handed, "127.0.0.2/32")
    guest = desk.guest_with(certificate, handed, desk.private)
    assert guest.gets_in(bind="127.0.0.2")
    assert not guest.gets_in(bind="127.0.0.1")


def test_options_in_the_signing_request_do_not_widen_the_certificate(desk: Desk) -> None:
    handed = desk.issue()
    lease = handed.lease
    role = f"gk-{lease.slice_id.removeprefix('sl_')}-read"
    # Without a network no option may be given at all, and with one sshd's own command stands above the certificate's.
    with pytest.raises(VaultRefused):
        signed_again(desk, handed, role=role, option="force-command=/bin/sh")
    for option in ("force-command=internal-sftp", "source-address=127.0.0.0/8"):
        guest = desk.guest_with(signed_again(desk, handed, role=f"{role}-net", option=option), handed, desk.private)
        done = guest.sftp("ls", "-put guestkey in/x")
        assert "hello.txt" in done.stdout and "Permission denied" in done.stderr
        assert "sftp connections only" in guest.ssh("HOST", "id").stdout
    with pytest.raises(VaultRefused):
        signed_again(desk, handed, role=f"{role}-net", option="verify-required=")
    with pytest.raises(VaultRefused):
        signed_again(desk, handed, role=role.replace("-read", "-write"))


def test_signing_roles_allow_one_account_and_no_options(desk: Desk) -> None:
    vault, lease = desk.world.parts.vault, desk.issue().lease
    token = vault.child_token(lease.handle, lease.id, SshKind().policies(lease.slice_id, "read"), ttl=60)
    role = f"gk-{lease.slice_id.removeprefix('sl_')}-read"
    for principal in ("root", "*", "guestkey-hand", f"{account_of(lease.slice_id, 'read')},root", ""):
        with pytest.raises(VaultRefused):
            vault.sign_ssh(role, key_pair()[1], principal, seconds=60, token=token)
    with pytest.raises(VaultRefused):
        vault.sign_ssh(role, key_pair()[1], account_of(lease.slice_id, "read"), seconds=26 * 3600, token=token)
    assert role_definition("gk-1r", "read")["allow_empty_principals"] is False


def test_certificate_for_a_second_key_of_the_lease_is_refused(desk: Desk) -> None:
    handed = desk.issue()
    private, public = key_pair()
    stolen = signed_again(desk, handed, key=public)
    assert not desk.guest_with(stolen, handed, private).gets_in()
    assert desk.guest(handed).gets_in()


def test_certificate_is_refused_for_another_account(desk: Desk) -> None:
    handed = desk.issue()
    guest = desk.guest(handed)
    writer, other = (
        account_of(handed.lease.slice_id, "write"),
        account_of(desk.world.slice_id(desk.dataset, "labels"), "read"),
    )
    for user in (writer, other, "guestkey-hand", "guestkey-host", "root"):
        guest.values = {**guest.values, "user": user}
        assert not guest.gets_in(), user


def test_a_certificate_without_principals_or_of_another_authority_is_refused(desk: Desk) -> None:
    handed = desk.issue()
    assert handed.values is not None
    folder = desk.folder / "authority"
    folder.mkdir()
    private, _ = key_pair()
    (folder / "ca").touch(mode=0o600)
    (folder / "ca").write_bytes(private)
    for principals in (["-n", handed.values["user"]], []):
        (folder / "key.pub").write_text(Certificate.read(handed.values["certificate"]).public_key + "\n")
        command = [
            "ssh-keygen",
            "-q",
            "-s",
            "ca",
            "-I",
            f"token-{handed.lease.handle}",
            "-V",
            "+5m",
            *principals,
            "key.pub",
        ]
        subprocess.run(command, cwd=folder, check=True)
        for trusted in (False, True):
            # Even an authority that the host trusts makes nobody a guest without a principal.
            with authority(desk.host, folder / "ca") if trusted else authority(desk.host, None):
                guest = desk.guest_with((folder / "key-cert.pub").read_text().strip(), handed, desk.private)
                assert guest.gets_in() is (trusted and bool(principals))
