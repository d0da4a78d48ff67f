"""Keys that a guest brings to a certificate: made here for one lease, never sent. Only their public half leaves.

What is a proof of the key for one kind is its public key, for another a request for a certificate (PKCS #10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from broker.base.private_keys import is_private
from broker.cli.faults import Code, Fault, unreadable

_LARGEST = 16 * 1024


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key in the form its tools read (PEM), and what the API takes as `public_key` for it."""

    public: str
    private: str = field(repr=False)


def needed(kind: str) -> bool:
    """Whether a credential of this kind is a certificate for a key of the guest's."""
    return kind in _MAKERS


def made(kind: str) -> KeyPair | None:
    """A fresh key for one lease; None for a kind that needs none."""
    maker = _MAKERS.get(kind)
    return maker() if maker else None


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
            f"{file} holds a private key.",
            why="It was not sent, and must never be.",
            next_step="Name the file of the public key, such as id_ed25519.pub, or of the request for a certificate.",
        )
    if len(content) > _LARGEST:
        raise Fault(Code.USAGE, f"{file} is far too long for a public key.", next_step="Check its name.")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise unreadable(file, error) from error


def _for_ssh() -> KeyPair:
    # Slow to import, and for nothing but this.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return KeyPair(public.decode(), private.decode())


def _for_x509() -> KeyPair:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # Nothing of the request but its key is used: the broker names the certificate.
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(request.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


_MAKERS: Mapping[str, Callable[[], KeyPair]] = {"ssh": _for_ssh, "x509": _for_x509}
