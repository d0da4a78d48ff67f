"""One open `ssh` to an SFTP host: a line goes out, a line comes back. Knows neither OpenBao nor what is said.

The host's key is pinned: whatever answers under another is not the host. A line that breaks is opened once more,
because all that is said may be said twice.
"""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from time import monotonic

import structlog

from broker.base.errors import BackendDown

log = structlog.get_logger(__name__)
ACCOUNT = "guestkey-hand"
_SECONDS = 8
_CONNECT_SECONDS = 3
_LONGEST = 1_000_000
_HOST = "host"
# A private key and its certificate, `<type> <base64>`.
Certified = Callable[[], tuple[bytes, str]]


class Line:
    """The way to one host. Whoever speaks waits for their turn. Thread-safe."""

    def __init__(self, place: Mapping[str, str], certified: Certified) -> None:
        self._place, self._certified = place, certified
        self._turn = Lock()
        self._ssh: subprocess.Popen[bytes] | None = None
        self._failed_at = float("-inf")

    def ask(self, text: str) -> str:
        """Say a line and return the answer.

        Raises:
            BackendDown: nobody answers in time, another host does, or our key is not certified.
        """
        began = monotonic()
        if not self._turn.acquire(timeout=_SECONDS):
            raise silent()
        try:
            if self._failed_at > began:
                # Whoever waited meanwhile need not find out the same.
                raise silent()
            return self._asked(text, began + _SECONDS)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Hang up."""
        ssh, self._ssh = self._ssh, None
        if ssh is None:
            return
        ssh.kill()
        ssh.wait()
        for pipe in (ssh.stdin, ssh.stdout):
            if pipe is not None:
                pipe.close()

    def _asked(self, text: str, until: float) -> str:
        if self._ssh is not None:
            answer = self._exchanged(text, until)
            if answer is not None:
                return answer
        self._open()
        answer = self._exchanged(text, until)
        if answer is None:
            self._failed_at = monotonic()
            raise silent()
        return answer

    def _exchanged(self, text: str, until: float) -> str | None:
        """The answer, or None if the line is broken; it is hung up then."""
        ssh = self._ssh
        assert ssh is not None and ssh.stdin is not None and ssh.stdout is not None  # opened with both
        said = b""
        try:
            ssh.stdin.write(text.encode() + b"\n")
            with selectors.DefaultSelector() as selector:
                selector.register(ssh.stdout, selectors.EVENT_READ)
                while not said.endswith(b"\n") and len(said) < _LONGEST:
                    came = os.read(ssh.stdout.fileno(), 65536) if selector.select(until - monotonic()) else b""
                    if not came:
                        break
                    said += came
        except OSError:
            said = b""
        if said.endswith(b"\n"):
            return said.decode("utf-8", "replace")
        self.close()
        return None

    def _open(self) -> None:
        private_key, certificate = self._certified()
        with TemporaryDirectory(prefix="guestkey-") as name:
            folder = Path(name)
            key = folder / "key"
            key.touch(mode=0o600)
            key.write_bytes(private_key)
            (folder / "key-cert.pub").write_text(certificate + "\n")
            (folder / "known_hosts").write_text(f"{_HOST} {self._place['host_key']}\n")
            try:
                self._ssh = subprocess.Popen(
                    [*_ssh(folder), "-p", self._place["port"], "-l", ACCOUNT, "--", self._place["host"], "talk"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    # Nothing kept back, which hanging up would try to send once more.
                    bufsize=0,
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                    # Ctrl-C at a terminal is for us; hanging up is ours.
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise silent("The program ssh is not installed beside the worker.") from error
            # Its files are read by the time it answers; until then they stay.
            if self._exchanged("check", monotonic() + _CONNECT_SECONDS + 1) is None:
                self._failed_at = monotonic()
                log.warning("ssh.host_silent", host=self._place["host"], port=self._place["port"])
                raise silent()


def _ssh(folder: Path) -> list[str]:
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "GlobalKnownHostsFile": "none",
        # The pinned key is the host's, whatever its name and port are.
        "HostKeyAlias": _HOST,
        "UpdateHostKeys": "no",
        "IdentityFile": str(folder / "key"),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "ConnectTimeout": str(_CONNECT_SECONDS),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "2",
        "ClearAllForwardings": "yes",
    }
    return ["ssh", "-q", "-F", "none", "-T", *(f"-o{name}={value}" for name, value in options.items())]


def printable(text: str) -> str:
    """A host's own words, fit for a line of ours."""
    return "".join(character if character.isprintable() else " " for character in text).strip()[:300]


def silent(detail: str = "The SFTP host does not answer.") -> BackendDown:
    """The host does not answer usefully."""
    return BackendDown(detail, backend="ssh", advice="Check that sshd and guestkey-sessions run there; then try again.")
