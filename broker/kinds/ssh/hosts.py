"""Speaking with SFTP hosts as the account guestkey-hand: a line and its answer, over one `ssh` to each that stays open.

The key is made here and lives in memory; OpenBao's authority certifies it for an hour, for whichever of the broker's
identities asks. `deploy/sshd/guestkey-sessions` is the other end.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.ssh.line import Line, printable, silent

ENDER, SETUP = "guestkey-ender", "guestkey-setup"
# OpenBao may be gone for the rest of the hour before nothing can be ended any more.
_CERTIFIED_SECONDS = 3600
_FRESH_SECONDS = 600
_MARGIN = 60
_WORD = re.compile(r"[A-Za-z0-9._/-]{1,1200}")


class HostRefused(Exception):
    """The host answered and said no. The text is the host's own, for operators."""


@dataclass(frozen=True, slots=True)
class _Hand:
    private_key: bytes = field(repr=False)
    certificate: str
    made_at: float


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
    said = _parsed(_hands_of(vault).line(role, place).ask(" ".join(words)))
    if "refused" in said:
        raise HostRefused(printable(str(said["refused"])))
    return said


class _Hands:
    """What one identity of the broker speaks to hosts with. Thread-safe."""

    def __init__(self, vault: Vault) -> None:
        self._vault = weakref.ref(vault)
        self._lock = Lock()
        self._hand: _Hand | None = None
        self._lines: dict[tuple[str, ...], Line] = {}

    def line(self, role: str, place: Mapping[str, str]) -> Line:
        """The line to a host, open or not yet."""
        key = (role, place["host"], place["port"], place["host_key"])
        with self._lock:
            if key not in self._lines:
                self._lines[key] = Line(place, lambda: self._certified(role))
            return self._lines[key]

    def close(self) -> None:
        """Hang up everywhere."""
        for line in self._lines.values():
            line.close()

    def _certified(self, role: str) -> tuple[bytes, str]:
        """A private key and its certificate, made anew every few minutes; an old one while OpenBao is gone."""
        with self._lock:
            held = self._hand
            age = monotonic() - held.made_at if held else _CERTIFIED_SECONDS
            if held is None or age >= _FRESH_SECONDS:
                try:
                    held = self._hand = self._made(role)
                except BackendDown:
                    if held is None or age >= _CERTIFIED_SECONDS - _MARGIN:
                        raise
            return held.private_key, held.certificate

    def _made(self, role: str) -> _Hand:
        vault = self._vault()
        assert vault is not None  # whoever asks holds it
        key, made_at = Ed25519PrivateKey.generate(), monotonic()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        try:
            return _Hand(private, vault.sign_ssh(role, public, role, seconds=_CERTIFIED_SECONDS), made_at)
        except VaultRefused as error:
            raise BackendDown(
                "The key store does not certify the broker's own SSH key.",
                backend="openbao",
                advice="Bring OpenBao's policies up to this release: deploy/openbao/upgrade.",
            ) from error


_all: WeakKeyDictionary[Vault, _Hands] = WeakKeyDictionary()
_all_lock = Lock()


def _hands_of(vault: Vault) -> _Hands:
    with _all_lock:
        if vault not in _all:
            hands = _all[vault] = _Hands(vault)
            weakref.finalize(vault, hands.close)
        return _all[vault]


def _parsed(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise silent("The SFTP host answered with nonsense.")
    return said
