"""OpenSSH public keys and certificates as text: which keys a guest may bring, and what a certificate says.

Certificates are read, never judged by their signature: whoever lets somebody in checks that.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
    load_ssh_public_key,
)

from broker.base.errors import Invalid
from broker.base.private_keys import is_private

FIELD = "/public_key"
CERTIFIED = "-cert-v01@openssh.com"
LEAST_RSA_BITS = 3072
_MOST_RSA_BITS = 16384
_MOST_CHARACTERS = 16 * 1024
# Types a guest may bring, and of how many fields each key is.
TYPES = {
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-rsa": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
_SECURITY_KEYS = {
    "sk-ssh-ed25519@openssh.com": "ssh-ed25519",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ecdsa-sha2-nistp256",
}
_MAKE = "ssh-keygen -t ed25519 -f guestkey"
_ADVICE = f"Create one with `{_MAKE}` and send the line in guestkey.pub."


def check_public_key(text: str) -> str:
    """A guest's public key as `<type> <base64>`: one OpenSSH line, its comment dropped.

    Raises:
        Invalid: each with its own reason, never with what was sent in it.
    """
    if is_private(text):
        raise _refused(
            "That was a private key. It was not stored, but it was sent over the network.",
            f"Delete it and create a new one: `{_MAKE}`; then send guestkey.pub.",
        )
    lines = [line for line in text.strip("\r\n\t ").splitlines() if line.strip()]
    if len(text) > _MOST_CHARACTERS or not lines or text.lstrip().startswith("----"):
        raise _refused("This is not a public key of OpenSSH.")
    if len(lines) > 1:
        raise _refused("There are several lines; a credential is for one key.")
    name, encoded = _named(lines[0])
    try:
        blob = base64.b64decode(encoded, validate=True)
        inner = _strings(blob, 1)[0][0].decode()
    except ValueError as error:
        raise _refused("The key is cut off, or not a key.") from error
    if CERTIFIED in name or CERTIFIED in inner:
        raise _refused(
            "This is a certificate. A certificate is made for a key, never for another certificate.",
            "Send the plain public key, from the file that does not end in -cert.pub.",
        )
    if inner != name:
        raise _refused("The key's type and its content do not agree.")
    plain = f"{name} {base64.b64encode(blob).decode()}"
    _check_strength(plain)
    return plain


def _check_strength(plain: str) -> None:
    try:
        key = load_ssh_public_key(plain.encode())
    except (ValueError, UnsupportedAlgorithm, NotImplementedError) as error:
        raise _refused("The key is cut off, or not a key.") from error
    if isinstance(key, RSAPublicKey):
        if not LEAST_RSA_BITS <= key.key_size <= _MOST_RSA_BITS:
            raise _refused(f"An RSA key has {LEAST_RSA_BITS} bits at least; this has {key.key_size}.")
        if key.public_numbers().e < 65537:
            raise _refused("The RSA key's exponent is too small.")


def _named(line: str) -> tuple[str, str]:
    name, _, rest = line.strip().partition(" ")
    if name == "ssh-dss" or name.startswith("ssh-dss-cert"):
        raise _refused("DSA keys are too weak.")
    if name not in TYPES and CERTIFIED not in name:
        # What stands before the key in authorized_keys would be the guest's word on what the key may do.
        if re.search(r"(?:^|[\s,])cert-authority(?:[\s,]|$)", line):
            raise _refused("The key of a certificate authority cannot be used here.")
        if any(f"{known} " in rest for known in TYPES):
            raise _refused("There is something before the key; send the key alone.")
        raise _refused(f"This type of key is not accepted. Use one of: {', '.join(sorted(TYPES))}.")
    return name, rest.split()[0] if rest.split() else ""


def _refused(detail: str, advice: str = _ADVICE) -> Invalid:
    return Invalid(detail, field=FIELD, advice=advice)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a user certificate says. `public_key` is the plain key in it; times are seconds since 1970."""

    public_key: str
    key_id: str
    principals: tuple[str, ...]
    valid_from: int
    valid_until: int
    critical_options: Mapping[str, str]
    extensions: tuple[str, ...]
    authority: str

    @classmethod
    def read(cls, text: str) -> Certificate:
        """Read `<type> <base64>`.

        Raises:
            ValueError: it is no user certificate for a key of a known type, or not whole.
        """
        name, encoded, *_ = [*text.split(), "", ""]
        plain = {_certified(known): known for known in TYPES}.get(name)
        if plain is None:
            raise ValueError("not a certificate for a key of a known type")
        (type_, nonce, *key), rest = _strings(base64.b64decode(encoded, validate=True), 2 + TYPES[plain])
        if type_ != name.encode():
            raise ValueError("the certificate's type and its content do not agree")
        if plain in _SECURITY_KEYS:
            # `cryptography` reads certificates of plain keys only: what makes one a security key's is its application.
            name = _certified(_SECURITY_KEYS[plain])
            encoded = base64.b64encode(_packed(name.encode(), nonce, *key[:-1]) + rest).decode()
        try:
            found = load_ssh_public_identity(f"{name} {encoded}".encode())
        except (UnsupportedAlgorithm, NotImplementedError) as error:
            raise ValueError("not a certificate that can be read") from error
        if not isinstance(found, SSHCertificate) or found.type is not SSHCertificateType.USER:
            raise ValueError("not a user's certificate")
        return cls(
            public_key=f"{plain} {base64.b64encode(_packed(plain.encode(), *key)).decode()}",
            key_id=found.key_id.decode(),
            principals=tuple(principal.decode() for principal in found.valid_principals),
            valid_from=found.valid_after,
            valid_until=found.valid_before,
            critical_options={option.decode(): value.decode() for option, value in found.critical_options.items()},
            extensions=tuple(option.decode() for option in found.extensions),
            authority=found.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        )


def _certified(name: str) -> str:
    return name.removesuffix("@openssh.com") + CERTIFIED


def _packed(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def _strings(blob: bytes, count: int) -> tuple[list[bytes], bytes]:
    """So many strings that some bytes begin with, in SSH's wire format (RFC 4251, section 5), and the rest."""
    found = []
    for _ in range(count):
        end = 4 + int.from_bytes(blob[:4])
        if not 4 <= end <= len(blob):
            raise ValueError("it ends too early")
        found.append(blob[4:end])
        blob = blob[end:]
    return found, blob
