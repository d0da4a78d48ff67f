"""Debian's sshd with the very files of `deploy/sshd`, below a folder of its own, and guests who speak to it."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker.embedded import children
from broker.models import Dataset, Vendor

DEPLOY = Path(__file__).resolve().parents[2] / "deploy/sshd"
CONNECTION = "sftp"


def key_pair() -> tuple[bytes, str]:
    """A fresh Ed25519 key as OpenSSH keeps it, and its public line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@dataclass
class SftpHost:
    """A running host. `prefix` is its `/`: what `install` puts under /etc lies in `prefix/etc`."""

    prefix: Path
    port: int
    host_key: str
    sshd: list[subprocess.Popen[bytes]] = field(default_factory=list)
    # What tests of a run share there, once it is made: vendor, dataset and its slices' directories.
    shared: list[tuple[Vendor, Dataset, dict[str, str]]] = field(default_factory=list)

    @property
    def place(self) -> dict[str, str]:
        """What the settings would say of it."""
        return {"host": "127.0.0.1", "port": str(self.port), "host_key": self.host_key}

    @property
    def log(self) -> Path:
        """What sshd wrote."""
        return self.prefix / "sshd.log"

    def directory(self, name: str) -> Path:
        """A directory for a slice, with a file to read and a place to write into."""
        made = self.prefix / "srv/guestkey" / name
        made.mkdir(parents=True, exist_ok=True)
        for folder in (made, *made.parents):
            if folder == self.prefix:
                break
            folder.chmod(0o755)
        (made / "hello.txt").write_text("labels\n")
        inbox = made / "in"
        inbox.mkdir(exist_ok=True)
        inbox.chmod(0o777)
        return made

    def barred(self) -> set[str]:
        """Key ids that were ended here."""
        return {file.name for file in (self.prefix / "run/guestkey/barred").iterdir()}

    def hand(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What root types at the host."""
        program = self.prefix / "usr/local/lib/guestkey/guestkey-sessions"
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=check)

    def configure(self, more: str = "") -> None:
        """Write sshd's own configuration, which includes what was installed."""
        text = f"""
Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.prefix}/host_key
PidFile none
UsePAM yes
LogLevel VERBOSE
MaxStartups 100
Subsystem sftp /usr/lib/openssh/sftp-server
Include {self.prefix}/etc/ssh/sshd_config.d/*.conf
{more}"""
        (self.prefix / "sshd_config").write_text(text)

    def start(self) -> None:
        """Run sshd."""
        command: list[str | Path] = ["/usr/sbin/sshd", "-D", "-e", "-f", self.prefix / "sshd_config"]
        child = children.start(command, log=self.log)
        self.sshd.append(child)
        children.wait_until(lambda: self._listens(), child, seconds=10, name="sshd", log=self.log)

    def stop(self) -> None:
        """Stop sshd; what is open goes on, as it does in life."""
        while self.sshd:
            children.stop(self.sshd.pop())

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class SftpGuest:
    """Somebody with a key and what they were handed over; every file lies in a folder of theirs."""

    def __init__(self, folder: Path, private_key: bytes, values: Mapping[str, str]) -> None:
        self.folder, self.values = folder, values
        key = folder / "guestkey"
        key.touch(mode=0o600)
        key.write_bytes(private_key)
        (folder / "guestkey-cert.pub").write_text(values["certificate"] + "\n")
        (folder / "guestkey-hosts").write_text(values["host_key"] + "\n")

    def sftp(self, *lines: str, bind: str = "127.0.0.1") -> subprocess.CompletedProcess[str]:
        """Run sftp commands; the first that fails ends it."""
        command = ["sftp", *self._options(bind), "-P", self.values["port"], "-b", "-", self._where]
        text = "\n".join(lines) + "\n"
        return subprocess.run(command, input=text, capture_output=True, text=True, cwd=self.folder, timeout=30)

    def ssh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ssh with more arguments; "HOST" stands for the host."""
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=30,
        )

    def command(self, *arguments: str) -> list[str]:
        """How ssh is called with these arguments from the guest's folder; the first of an option's values counts."""
        filled = [self._where if argument == "HOST" else argument for argument in arguments]
        return ["ssh", *self._options("127.0.0.1"), "-p", self.values["port"], *filled]

    def gets_in(self, *, bind: str = "127.0.0.1") -> bool:
        """Whether sftp opens and shows the directory."""
        done = self.sftp("ls", bind=bind)
        return done.returncode == 0 and "hello.txt" in done.stdout

    def transfer(self, file: str) -> subprocess.Popen[bytes]:
        """Begin to fetch a file, slowly; returns once something has come."""
        (self.folder / "fetch").write_text(f"get {file} coming\n")
        slowly = ["-l", "80000", "-b", "fetch", self._where]
        child = subprocess.Popen(
            ["sftp", *self._options("127.0.0.1"), "-P", self.values["port"], *slowly],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
        )
        coming = self.folder / "coming"
        while not (coming.exists() and coming.stat().st_size):
            assert child.poll() is None, "sftp ended before anything came"
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.02)
        return child

    @property
    def _where(self) -> str:
        return f"{self.values['user']}@{self.values['host']}"

    def _options(self, bind: str) -> list[str]:
        options = {
            "UserKnownHostsFile": "guestkey-hosts",
            "GlobalKnownHostsFile": "none",
            "StrictHostKeyChecking": "yes",
            "IdentityFile": "guestkey",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "BindAddress": bind,
        }
        return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]


@contextmanager
def sftp_host(authority: str, broker: str, service: str, secret: str, **environment: str) -> Iterator[SftpHost]:
    """Install `deploy/sshd` below a folder, run it and sshd, and take the accounts it made away afterwards.

    Args:
        authority: OpenBao's SSH authority, its public key.
        broker: the address of a replica; `service` and `secret` are what the host proves itself with there.
        environment: more variables for `install`.
    """
    assert os.geteuid() == 0, "sshd lets guests into accounts of their own only as root: run the tests as root"
    Path("/run/sshd").mkdir(exist_ok=True)
    # Not under /tmp: sshd trusts no file below a folder that others may write.
    with TemporaryDirectory(prefix="gk-sftp-", dir="/var/lib", ignore_cleanup_errors=True) as name:
        prefix = Path(name)
        prefix.chmod(0o755)
        private, public = key_pair()
        host = SftpHost(prefix, children.free_port(), public)
        for file, content in (("host_key", private), ("ca.pub", authority.encode()), ("secret", secret.encode())):
            (prefix / file).touch(mode=0o600)
            (prefix / file).write_bytes(content + b"\n")
        install(host, broker, service, **environment)
        host.configure()
        sessions = children.start(
            [prefix / "usr/local/lib/guestkey/guestkey-sessions", "serve"], log=prefix / "sessions.log"
        )
        listening = prefix / "run/guestkey/sessions.sock"
        children.wait_until(
            listening.exists, sessions, seconds=10, name="guestkey-sessions", log=prefix / "sessions.log"
        )
        try:
            host.start()
            yield host
        finally:
            host.stop()
            children.stop(sessions)
            for account in pwd.getpwall():
                if account.pw_dir.startswith(f"{prefix}/"):
                    subprocess.run(["userdel", "-f", account.pw_name], check=True, capture_output=True)


def install(host: SftpHost, broker: str, service: str, *more: str, **environment: str) -> None:
    """Run `deploy/sshd/install` for this host."""
    prefix = host.prefix
    subprocess.run(
        [DEPLOY / "install", CONNECTION, broker, service, prefix / "secret", prefix / "ca.pub", *more],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PREFIX": str(prefix), **environment},
        check=True,
        capture_output=True,
    )
