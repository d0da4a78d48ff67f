"""Signed checkpoints of the log, as C2SP tlog-checkpoint and signed-note write them. Shared with the command line.

A checkpoint is a text of three lines (origin, number of entries, root in base64), an empty line and a signature line.
https://github.com/C2SP/C2SP/blob/main/signed-note.md, https://github.com/C2SP/C2SP/blob/main/tlog-checkpoint.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

_ED25519 = b"\x01"
_MARK = "\N{EM DASH} "
_LONGEST = 4096


class BadCheckpoint(ValueError):
    """A checkpoint or a key that is not one, or a signature that does not hold. The text says which."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: `root` is 32 bytes over the first `size` entries."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Key:
    """The public half of a log's signing key: `name`, and 32 bytes of Ed25519."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that stand before each of its signatures."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read a key as `str` writes it.

        Raises:
            BadCheckpoint: it is none.
        """
        name, _, rest = text.strip().partition("+")
        id_, _, encoded = rest.partition("+")
        raw = _decoded(encoded)
        if not name or any(character.isspace() for character in name) or raw[:1] != _ED25519 or len(raw) != 33:
            raise BadCheckpoint("This is not the public key of a log.")
        key = cls(name, raw[1:])
        if key.id.hex() != id_:
            raise BadCheckpoint("The key does not belong to the name it carries.")
        return key


def note(checkpoint: Checkpoint, key: Key, signature: bytes) -> str:
    """A checkpoint with its signature, as it is published."""
    return f"{checkpoint.body()}\n{_MARK}{key.name} {base64.b64encode(key.id + signature).decode()}\n"


def opened(text: str, key: Key) -> Checkpoint:
    """The checkpoint in a signed note, its signature checked.

    Raises:
        BadCheckpoint: the note is malformed, or not signed by this key.
    """
    # Slow to import, and needed by few commands.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    body, parted, signatures = text.partition("\n\n")
    body += "\n"
    if not parted or len(text) > _LONGEST:
        raise BadCheckpoint("This is not a signed checkpoint.")
    for line in signatures.splitlines():
        name, _, encoded = line.removeprefix(_MARK).partition(" ")
        raw = _decoded(encoded)
        if line.startswith(_MARK) and name == key.name and raw[:4] == key.id:
            try:
                Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], body.encode())
            except (InvalidSignature, ValueError):
                raise BadCheckpoint("The checkpoint's signature does not hold: it was altered.") from None
            return _parsed(body)
    raise BadCheckpoint("The checkpoint is not signed by this key.")


def _parsed(body: str) -> Checkpoint:
    lines = body.split("\n")
    if len(lines) < 4 or not (lines[1].isascii() and lines[1].isdigit()) or len(lines[1]) > 18:
        raise BadCheckpoint("This is not a checkpoint.")
    root = _decoded(lines[2])
    if len(root) != 32:
        raise BadCheckpoint("The checkpoint's root is not a SHA-256 hash.")
    return Checkpoint(lines[0], int(lines[1]), root)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
