"""Keys that a guest brings to a certificate: made here for one lease, never sent. Only their public half leaves.

What is a proof of the key for one kind is its public key, for another a request for a certificate (PKCS #10).
"""

from __future__ import annotations

from pathlib import Path

from broker.base.private_keys import is_private
from broker.kinds.client import KeyPair
from guestkey.cli.clients import client_of
from guestkey.cli.faults import Code, Fault, unreadable

_LARGEST = 16 * 1024


def made(kind: str | None) -> KeyPair | None:
    """A fresh key for one lease; None for a kind that needs none."""
    client = client_of(kind)
    return client.key() if client.makes_key else None


def read(file: Path) -> str:
    """What the API takes, from a file of the guest's own: a public key, or a request for a certificate.

    Raises:
        Fault: it cannot be read, or is the private key.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        raise unreadable(file, error) from error
    if is_private(content):
        raise Fault(
            Code.USAGE,
            f"{file} contains a private key.",
            why="It was not sent, and must never be.",
            next_step="Name the file of the public key, such as id_ed25519.pub, or of the request for a certificate.",
        )
    if len(content) > _LARGEST:
        raise Fault(Code.USAGE, f"{file} is too long for a public key.", next_step="Check its name.")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise unreadable(file, error) from error
