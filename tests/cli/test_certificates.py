"""Certificates at the command line: the key is made here, never sent, and gone afterwards. Real sshd, nginx, agent."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from broker.models import Dataset, Lease
from guestkey.cli.faults import Fault
from guestkey.cli.programs import program_for
from tests.cli.conftest import TerminalOf
from tests.cli.test_credentials import wait_for_file
from tests.credentials.conftest import asked, gate
from tests.support.gateway import NAME, Gateway, guest
from tests.support.sshd import CONNECTION, SftpHost
from tests.support.world import Signed, World

__all__ = ["asked", "gate"]
pytestmark = pytest.mark.usefixtures("worker")


def at_host(world: World, host: SftpHost) -> tuple[Signed, Dataset]:
    """Somebody with a grant on a directory of the host that holds `hello.txt`."""
    name = f"acme/{secrets.token_hex(4)}"
    host.directory(name)
    vendor = world.vendor()
    signed = world.person(vendor)
    binding = {"connection": CONNECTION, "directory": name}
    dataset = world.dataset(vendor, kind="ssh", slices={"deidentified": binding})
    world.grant(dataset, signed)
    return signed, dataset


def behind_gateway(world: World) -> tuple[Signed, Dataset]:
    """Somebody with a grant on what a gateway guards."""
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="x509", slices={"deidentified": {"connection": NAME}})
    world.grant(dataset, signed)
    return signed, dataset


def states(world: World, signed: Signed) -> set[str]:
    """The states of somebody's leases."""
    with world.database.transaction() as tx:
        return set(tx.scalars(select(Lease.state).where(Lease.person_id == signed.id)))


@contextmanager
def agent(folder: Path) -> Iterator[dict[str, str]]:
    """An ssh-agent of its own; yields what programs find it by."""
    socket = folder / "agent"
    child = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and b"SSH_AUTH_SOCK" in child.stdout.readline()
        yield {"SSH_AUTH_SOCK": str(socket)}
    finally:
        child.terminate()
        child.communicate()


def held(variables: dict[str, str]) -> str:
    """What the agent holds."""
    return subprocess.run(
        ["ssh-add", "-l"], capture_output=True, text=True, env={**os.environ, **variables}, check=False
    ).stdout


# -- ssh ----------------------------------------------------------------------------------------------------------


def test_connect_opens_sftp_without_the_persons_own_keys_or_config(
    world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = at_host(world, sftp)
    terminal = terminal_of(signed)
    ssh = terminal.home / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "config").write_text("Host *\n  ProxyCommand /bin/false\n  User nobody\n")
    running = tmp_path / "run"
    running.mkdir(mode=0o700)
    target = tmp_path / "got.txt"
    ran = terminal.run(
        "connect", dataset.slug, stdin=f"ls\nget hello.txt {target}\nbye\n", XDG_RUNTIME_DIR=str(running)
    )
    assert ran.code == 0, ran.err
    assert target.read_text() == "labels\n"
    assert "You are in / on 127.0.0.1" in ran.err and "the backend confirmed it" in ran.err
    assert states(world, signed) == {"revoked"}
    assert list(running.iterdir()) == [], "the key is gone"


def test_sftp_host_with_another_key_is_refused(world: World, sftp: SftpHost, terminal_of: TerminalOf) -> None:
    signed, dataset = at_host(world, sftp)
    place = world.settings.connections("ssh")[CONNECTION]
    pinned = place.host_key
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9Q"
    place.host_key = other
    try:
        ran = terminal_of(signed).run("connect", dataset.slug, stdin="ls\n")
    finally:
        place.host_key = pinned
    assert ran.code == 255, ran
    assert "Host key verification failed" in ran.err
    # The worker would not speak to that host either, and tries again until it is itself once more.
    with world.database.transaction() as tx:
        lease_id = tx.scalars(select(Lease.id).where(Lease.person_id == signed.id)).one()
    world.wait_for(lease_id, "revoked", seconds=40)


def test_run_sets_the_ssh_config_and_prints_no_private_key(
    world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = at_host(world, sftp)
    script = (
        f"env > {tmp_path}/env; ps -ww -e -o args= > {tmp_path}/ps; cat $GUESTKEY_SSH_CONFIG;"
        " stat -c %a $(dirname $GUESTKEY_SSH_CONFIG) $(dirname $GUESTKEY_SSH_CONFIG)/id;"
        " echo ls | sftp -b - -F $GUESTKEY_SSH_CONFIG guestkey"
    )
    ran = terminal_of(signed).run("run", dataset.slug, "--", "sh", "-c", script)
    assert ran.code == 0, ran.err
    assert "hello.txt" in ran.out and "\n700\n600\n" in ran.out
    folder = re.search(r'IdentityFile "(.*)/id"', ran.out)
    assert folder and not Path(folder[1]).exists()
    assert "PRIVATE KEY" not in (tmp_path / "env").read_text() + (tmp_path / "ps").read_text()


def test_signal_removes_the_key_and_ends_the_lease(
    world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = at_host(world, sftp)
    running = tmp_path / "run"
    running.mkdir(mode=0o700)
    script = f"echo x > {tmp_path}/started; exec sleep 60"
    child = terminal_of(signed).start("run", dataset.slug, "--", "sh", "-c", script, XDG_RUNTIME_DIR=str(running))
    wait_for_file(tmp_path / "started")
    assert len(list(running.iterdir())) == 1
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGTERM, err
    assert (list(running.iterdir()), states(world, signed)) == ([], {"revoked"})


def test_ssh_agent_keeps_key_and_certificate_until_the_lease_ends(
    world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = at_host(world, sftp)
    terminal = terminal_of(signed)
    with agent(tmp_path) as variables:
        ran = terminal.run("get", dataset.slug, "--kind", "ssh", "--format", "ssh-agent", "--for", "60s", **variables)
        assert ran.code == 0, ran.err
        assert "ED25519-CERT" in held(variables)
        host_key = next(line.strip() for line in ran.err.splitlines() if line.startswith("  ["))
        (tmp_path / "known").write_text(host_key + "\n")
        command = [*shlex.split(ran.out), f"-oUserKnownHostsFile={tmp_path}/known", "-b", "-"]
        command = [command[0], *command[4:], *command[1:4]]
        seen = subprocess.run(
            command, input="ls\n", capture_output=True, text=True, env={**terminal.variables, **variables}, check=False
        )
        assert "hello.txt" in seen.stdout, seen.stderr
        # Long enough to be seen on a busy machine, too.
        short = terminal.run("get", dataset.slug, "--kind", "ssh", "--format", "ssh-agent", "--for", "5s", **variables)
        assert short.code == 0, short.err
        before = held(variables).count("\n")
        subprocess.run(["sleep", "6.5"], check=True)
        assert held(variables).count("\n") == before - 2, "key and certificate of the short lease are forgotten"
        assert not list(Path(terminal.home).rglob("id*"))


def test_refusing_ssh_agent_leaves_no_lease(
    world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = at_host(world, sftp)
    nobody = str(tmp_path / "no-agent")
    ran = terminal_of(signed).run("get", dataset.slug, "--kind", "ssh", "--format", "ssh-agent", SSH_AUTH_SOCK=nobody)
    assert (ran.code, ran.out) == (1, ""), ran
    assert "The ssh-agent refused the key" in ran.err and "Next: " in ran.err
    assert states(world, signed) == {"revoked"}


def test_ssh_files_format_is_enough_for_sftp(
    world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = at_host(world, sftp)
    terminal = terminal_of(signed)
    folder = tmp_path / "keys"
    ran = terminal.run("get", dataset.slug, "--kind", "ssh", "--format", "ssh-files", "--out", str(folder))
    assert ran.code == 0, ran.err
    assert sorted(file.name for file in folder.iterdir()) == [".guestkey", "config", "id", "id-cert.pub", "known_hosts"]
    told = next(line for line in ran.err.splitlines() if line.startswith("Use it: "))
    command = [*shlex.split(told.removeprefix("Use it: "))]
    seen = subprocess.run(
        [command[0], "-b", "-", *command[1:]], input="ls\n", capture_output=True, text=True, check=False
    )
    assert "hello.txt" in seen.stdout, seen.stderr


def test_own_public_key_is_certified_and_private_key_never_sent(
    world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = at_host(world, sftp)
    terminal = terminal_of(signed)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "own"], check=True)
    wanted = ("get", dataset.slug, "--kind", "ssh", "--field", "certificate", "--public-key")
    refused = terminal.run(*wanted, str(tmp_path / "own"))
    assert (refused.code, "contains a private key" in refused.err) == (2, True)
    ran = terminal.run(*wanted, str(tmp_path / "own.pub"))
    assert ran.code == 0, ran.err
    (tmp_path / "own-cert.pub").write_text(ran.out)
    assert fingerprint(tmp_path / "own-cert.pub") == fingerprint(tmp_path / "own.pub")


def test_json_contains_the_created_key(world: World, sftp: SftpHost, terminal_of: TerminalOf, tmp_path: Path) -> None:
    signed, dataset = at_host(world, sftp)
    ran = terminal_of(signed).run("get", dataset.slug, "--kind", "ssh", "--json")
    values = json.loads(ran.out)["data"]["credential"]
    key, certificate = tmp_path / "id", tmp_path / "id-cert.pub"
    key.touch(mode=0o600)
    key.write_text(values["private_key"])
    certificate.write_text(values["certificate"])
    assert fingerprint(key) == fingerprint(certificate)


def fingerprint(file: Path) -> str:
    """Of the key in a file, or of the one that a certificate is for."""
    done = subprocess.run(["ssh-keygen", "-l", "-f", file], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


# -- x509 ---------------------------------------------------------------------------------------------------------


def let_in(gate: Gateway, certificate: Path, key: Path) -> int:
    """The gateway's answer to whoever shows this certificate."""
    return gate.get(certificate.read_text(), key.read_bytes())[0]


def test_pem_files_authenticate_at_the_gateway(
    world: World, gate: Gateway, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = behind_gateway(world)
    terminal = terminal_of(signed)
    folder = tmp_path / "tls"
    ran = terminal.run("get", dataset.slug, "--kind", "x509", "--format", "pem", "--out", f"{folder}/")
    assert ran.code == 0, ran.err
    assert let_in(gate, folder / "cert.pem", folder / "key.pem") == 200
    assert f"curl --cert {folder}/cert.pem --key {folder}/key.pem https://localhost:" in ran.err
    bundle = tmp_path / "bundle.pem"
    again = terminal.run("get", dataset.slug, "--kind", "x509", "--format", "pem", "--out", str(bundle))
    assert again.code == 0, again.err
    # One file with everything in it, as curl, psql and haproxy take it; our remark before it does not disturb.
    checked = subprocess.run(["openssl", "pkey", "-in", bundle, "-noout"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert gate.get(bundle.read_text(), b"")[0] == 200


def test_run_sets_certificate_files_and_removes_them(
    world: World, gate: Gateway, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = behind_gateway(world)
    (tmp_path / "ca.pem").write_bytes(gate.authority.cert_pem.bytes())
    script = (
        'curl -s --cert "$GUESTKEY_CERTIFICATE_FILE" --key "$GUESTKEY_PRIVATE_KEY_FILE" -o /dev/null'
        ' -w "%{http_code}\\n"'
        f" --cacert {tmp_path}/ca.pem --resolve records.example:{gate.port}:127.0.0.1"
        f' https://records.example:{gate.port}/; echo "$GUESTKEY_PRIVATE_KEY_FILE"'
    )
    ran = terminal_of(signed).run("run", dataset.slug, "--", "sh", "-c", script)
    assert ran.code == 0, ran.err
    status, key = ran.out.split()
    assert status == "200" and not Path(key).exists()
    assert states(world, signed) == {"revoked"}


def test_own_certificate_request_is_signed(
    world: World, gate: Gateway, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset = behind_gateway(world)
    own = guest()
    (tmp_path / "own.csr").write_text(own.request)
    (tmp_path / "own.key").write_bytes(own.key_pem)
    ran = terminal_of(signed).run(
        "get", dataset.slug, "--kind", "x509", "--format", "pem", "--public-key", str(tmp_path / "own.csr")
    )
    assert ran.code == 0, ran.err
    assert "PRIVATE KEY" not in ran.out
    (tmp_path / "own.pem").write_text(ran.out)
    assert let_in(gate, tmp_path / "own.pem", tmp_path / "own.key") == 200


def test_connect_without_a_program_for_the_kind_suggests_run(
    world: World, gate: Gateway, terminal_of: TerminalOf
) -> None:
    signed, dataset = behind_gateway(world)
    ran = terminal_of(signed).run("connect", dataset.slug)
    assert (ran.code, ran.out) == (125, "")
    assert f"guestkey run {dataset.slug} --kind x509" in ran.err
    assert states(world, signed) == set()


def test_kind_without_a_program_says_how_to_use_it() -> None:
    with pytest.raises(Fault) as caught:
        program_for("records", "x509", "read")
    assert caught.value.next_step == "guestkey run records --kind x509 -- YOUR-TOOL"
