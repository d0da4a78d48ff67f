"""Speaking with SFTP hosts as the account guestkey-hand: a line and its answer, over one `ssh` to each that stays open.

The key is made here and lives in memory; OpenBao's authority certifies it for an hour, for whichever of the broker's
identities asks. The host's key is pinned: whatever answers under another is not the host. A connection that breaks is
opened once more, because all that is said may be said twice. `deploy/sshd/guestkey-sessions` is the other end.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault
from broker.kinds.base import refused_as

log = structlog.get_logger(__name__)
ACCOUNT = "guestkey-hand"
_SECONDS = 8
_CONNECT_SECONDS = 3
_LONGEST = 1_000_000
_HOST = "host"
# A private key and its certificate, `<type> <base64>`.
Certified = Callable[[], tuple[bytes, str]]
ENDER, SETUP = "guestkey-ender", "guestkey-setup"
# OpenBao may be gone for the rest of the hour before nothing can be ended any more.
_CERTIFIED_SECONDS = 3600
_FRESH_SECONDS = 600
_MARGIN = 60
_WORD = re.compile(r"[A-Za-z0-9._/-]{1,1200}")


class HostRefused(Exception):
    """The host answered and said no. The text is the host's own, for operators."""


@dataclass(frozen=True, slots=True)
class _CertifiedKey:
    private_key: bytes = field(repr=False)
    certificate: str
    made_at: float


_all: WeakKeyDictionary[Vault, _HostConnections] = WeakKeyDictionary()
_all_lock = Lock()


def ask(vault: Vault, role: str, place: Mapping[str, str], *words: str) -> Mapping[str, Any]:
    """Say something to the host and return its answer. What can be said may be said twice.

    Args:
        role: which of `ENDER` and `SETUP` asks; the vault's identity must be the same.
        place: `host`, `port` and `host_key`, from the settings.

    Raises:
        HostRefused: it will not.
        BackendDown: it does not answer, is another host, or OpenBao does not certify us.
    """
    if not place:
        raise silent("The SFTP host's connection is not in GUESTKEY_SSH_CONNECTIONS.")
    if not words or not all(_WORD.fullmatch(word) for word in words):
        raise ValueError("a word that a shell might read otherwise")
    with _all_lock:
        if vault not in _all:
            _all[vault] = _HostConnections(vault)
            weakref.finalize(vault, _all[vault].close)
        connections = _all[vault]
    try:
        said = json.loads(connections.line(role, place).ask(" ".join(words)))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise silent("The SFTP host sent an invalid answer.")
    if "refused" in said:
        # A host's own words, fit for a line of ours.
        text = "".join(character if character.isprintable() else " " for character in str(said["refused"]))
        raise HostRefused(text.strip()[:300])
    return said


class _HostConnections:
    """What one identity of the broker speaks to hosts with. Thread-safe."""

    def __init__(self, vault: Vault) -> None:
        self._vault = weakref.ref(vault)
        self._lock = Lock()
        self._key: _CertifiedKey | None = None
        self._lines: dict[tuple[str, ...], HostConnection] = {}

    def line(self, role: str, place: Mapping[str, str]) -> HostConnection:
        """The line to a host, open or not yet."""
        key = (role, place["host"], place["port"], place["host_key"])
        with self._lock:
            if key not in self._lines:
                self._lines[key] = HostConnection(place, lambda: self._certified(role))
            return self._lines[key]

    def close(self) -> None:
        """Hang up everywhere."""
        for line in self._lines.values():
            line.close()

    def _certified(self, role: str) -> tuple[bytes, str]:
        """A private key and its certificate, made anew every few minutes; an old one while OpenBao is gone."""
        with self._lock:
            held = self._key
            age = monotonic() - held.made_at if held else _CERTIFIED_SECONDS
            if held is None or age >= _FRESH_SECONDS:
                try:
                    held = self._key = self._made(role)
                except BackendDown:
                    if held is None or age >= _CERTIFIED_SECONDS - _MARGIN:
                        raise
            return held.private_key, held.certificate

    def _made(self, role: str) -> _CertifiedKey:
        vault = self._vault()
        assert vault is not None  # whoever asks holds it
        key, made_at = Ed25519PrivateKey.generate(), monotonic()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        advice = "Bring OpenBao's policies up to this release: deploy/openbao/upgrade."
        with refused_as("The key store does not certify the broker's own SSH key.", advice):
            return _CertifiedKey(private, vault.sign_ssh(role, public, role, seconds=_CERTIFIED_SECONDS), made_at)


class HostConnection:
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
            answer = self._exchanged(text, began + _SECONDS) if self._ssh is not None else None
            if answer is None:
                self._open()
                answer = self._exchanged(text, began + _SECONDS)
            if answer is None:
                self._failed_at = monotonic()
                raise silent()
            return answer
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


def silent(detail: str = "The SFTP host does not answer.") -> BackendDown:
    """The host does not answer usefully."""
    return BackendDown(detail, backend="ssh", advice="Check that sshd and guestkey-sessions run there; then try again.")
