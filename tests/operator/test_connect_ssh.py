"""`guestkey connect-backend ssh` against Debian's sshd: what it writes and prints is what the host needs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from broker.base.settings import BaoIdentity
from broker.embedded import openbao
from broker.embedded.children import free_port
from broker.embedded.stack import Stack
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.ssh.public_keys import Certificate
from tests.operator.conftest import Ran, command
from tests.support.key_store_setup import setup_without
from tests.support.sshd import SftpHost, key_pair
from tests.support.world import World

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Ran]


@pytest.fixture
def run(stack: Stack, sftp: SftpHost, tmp_path: Path) -> Run:
    (tmp_path / "host_key.pub").write_text(f"{sftp.host_key} root@sftp\n")

    def connect(*arguments: str, **changes: str) -> Ran:
        options = {
            "--name": "labels",
            "--host": "127.0.0.1",
            "--port": str(sftp.port),
            "--host-key-file": str(tmp_path / "host_key.pub"),
            "--service": "sv_1",
            "--folder": str(tmp_path / "folder"),
            "--operator-secret-id-file": str(stack.bao.secret_id_file("guestkey-operator")),
        } | {f"--{name}": value for name, value in changes.items()}
        given = [word for pair in options.items() for word in pair]
        return command(["connect-backend", "ssh", *given, *arguments], stack.environment())

    return connect


def test_responding_host_is_recorded(run: Run, sftp: SftpHost, world: World, tmp_path: Path) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    name, _, setting = done.stdout.partition("=")
    assert name == "GUESTKEY_SSH_CONNECTIONS"
    assert json.loads(setting)["labels"] == {"host": "127.0.0.1", "port": sftp.port, "host_key": sftp.host_key}
    assert (tmp_path / "folder/ca.pub").read_text() == (sftp.prefix / "etc/guestkey/ca.pub").read_text()
    assert "BEGIN PUBLIC KEY" in (tmp_path / "folder/krl.pem").read_text()
    assert world.events("labels") == ["backend.connected"]


def test_unresponsive_host_prints_the_commands_to_run(run: Run, world: World) -> None:
    done = run("--json", port=str(free_port()), name="silent")
    assert done.returncode == 9
    said = json.loads(done.stdout)["data"]
    assert said["connected"] is False and len(said["missing"]) == 2
    assert any(line.startswith("sshd/install silent http://localhost:") for line in said["commands"])
    assert world.events("silent") == []


def test_invalid_host_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n")
    for changes, said in (
        ({"name": "Labels"}, "The connection must be named, in lower case."),
        ({"host": "-oProxyCommand=id"}, "This is no host."),
        ({"port": "0"}, "This is no port."),
        ({"host-key-file": str(tmp_path / "private")}, "This is no host key."),
        ({"host-key-file": str(tmp_path / "none")}, "The host key's file cannot be read."),
    ):
        done = run("--json", **changes)
        assert (done.returncode, json.loads(done.stderr)["error"]["title"]) == (1, said)


def test_ssh_authority_is_created_once_in_an_earlier_openbao_setup(tmp_path: Path) -> None:
    bao = openbao.OpenBao(tmp_path / "openbao", free_port(), free_port())
    with patch.object(openbao, "INITIALIZE", setup_without("ssh", tmp_path)):
        bao.start()
    try:
        variables = {
            "PATH": f"{openbao.binary().parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "BAO_ADDR": bao.address,
            "CUSTODIAN_SECRET_ID_FILE": str(bao.secret_id_file("guestkey-custodian")),
        }
        secret_id = bao.secret_id_file("guestkey-ender")
        ender = Vault(bao.address, BaoIdentity(role_id="guestkey-ender", secret_id_file=secret_id))
        with pytest.raises(VaultRefused):
            ender.sign_ssh("guestkey-ender", key_pair()[1], "guestkey-ender", seconds=60)
        authorities = set()
        for _ in range(2):
            ran = subprocess.run([ROOT / "deploy/openbao/upgrade"], env=variables, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            certificate = ender.sign_ssh("guestkey-ender", key_pair()[1], "guestkey-ender", seconds=60)
            authorities.add(Certificate.read(certificate).authority)
        assert len(authorities) == 1, "running it again makes no other authority"
        assert Certificate.read(certificate).principals == ("guestkey-ender",)
        with pytest.raises(VaultRefused):
            ender.sign_ssh("guestkey-ender", key_pair()[1], "root", seconds=60)
    finally:
        bao.stop()
