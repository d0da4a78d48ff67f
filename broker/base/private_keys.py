"""Telling a private key from everything else, in whatever form it comes. The only test for it.

The command line asks before anything leaves the guest's machine, the server before it looks at a key any further; so
nothing of the server is imported here. It errs towards yes: a false alarm costs a question, the other fault a key.
"""

from __future__ import annotations

import base64
import binascii
import re

# No pattern may take longer than a text is long, whoever wrote it: nothing repeats without bound before what it seeks.
_TEXTS = (
    # PEM of every kind (RFC 7468, OpenSSH, OpenPGP, sigstore), SSH.com's with four dashes, and SSH 1's binary file.
    re.compile(r"PRIVATE KEY|BEGIN[A-Z0-9 ]{0,99}private key"),
    re.compile(r"PuTTY-User-Key-File-\d|^Private-(?:Lines|MAC|Hash):", re.MULTILINE | re.IGNORECASE),
    re.compile(r"openssh-key-v1|b3BlbnNzaC1rZXktdjE"),
    re.compile(r"\bAGE-(?:SECRET-KEY|PLUGIN-[A-Z0-9-]{1,99}?)-1", re.IGNORECASE),
    # Both programs that write such comments read no longer ones.
    re.compile(r"untrusted comment:[^\n]{0,1024}secret key", re.IGNORECASE),
    re.compile(r"^[^\S\n]*Private-?Key(?:-format)?\s*[=:]", re.MULTILINE | re.IGNORECASE),
)
# What is a private key where both are found.
_PAIRS = (
    (re.compile(r"<RSAKeyValue>"), re.compile(r"<D>")),
    (re.compile(r"\"kty\""), re.compile(r"\"(?:d|k|p|q|priv)\"\s*:")),
)
_STORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")
# A sequence of DER in base64, also without the lines around it, as somebody copies it from a page.
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/])M[A-Za-z0-9+/]{27,}")
# Object identifiers of PKCS #5 and of PKCS #12's encryption: what an encrypted key (RFC 5958) begins with.
_ENCRYPTIONS = (bytes.fromhex("2a864886f70d0105"), bytes.fromhex("2a864886f70d010c01"))
_SEQUENCE, _INTEGER, _OBJECT = 0x30, 0x02, 0x06
_MOST = 64 * 1024


def is_private(content: str | bytes) -> bool:
    """Whether this is, or holds, a private key: PEM, DER, PKCS #8 and #12, OpenSSH, PuTTY, JWK, age and the like."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    raw = raw[:_MOST]
    # UTF-16 is ASCII with zero bytes between.
    text = raw.replace(b"\x00", b"").lstrip(b"\xff\xfe\xef\xbb\xbf").decode("latin-1")
    if any(one.search(text) for one in _TEXTS) or any(one.search(text) and two.search(text) for one, two in _PAIRS):
        return True
    return _is_binary(raw) or any(_is_binary(_decoded(part)) for part in _BASE64.findall(text))


def _decoded(letters: str) -> bytes:
    try:
        return base64.b64decode(letters[: len(letters) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return b""


def _is_binary(raw: bytes) -> bool:
    if raw.startswith(_STORES) or b"openssh-key-v1\x00" in raw[:64]:
        return True
    try:
        inner, _ = _value(raw, _SEQUENCE)
        if inner[0] == _INTEGER:
            # A version: private keys and PKCS #12. What is public begins with a sequence or a large number.
            version, _ = _value(inner, _INTEGER)
            return len(version) == 1 and version[0] in (0, 1, 3)
        algorithm, _ = _value(inner, _SEQUENCE)
        return _value(algorithm, _OBJECT)[0].startswith(_ENCRYPTIONS)
    except (IndexError, ValueError):
        return False


def _value(raw: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the DER value (X.690) that this begins with, as much as is there, and what follows it."""
    if raw[0] != tag:
        raise ValueError(tag)
    length, at = raw[1], 2
    if length >= 0x80:
        count = length & 0x7F
        if count > 4:
            raise ValueError(count)
        # BER may leave the length open (X.690, 8.1.3.6), as some programs do that export PKCS #12.
        length, at = int.from_bytes(raw[2 : 2 + count], "big") if count else len(raw), 2 + count
    return raw[at : at + length], raw[at + length :]
