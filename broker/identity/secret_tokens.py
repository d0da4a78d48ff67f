"""Random tokens that are handed out once and kept as hashes; and short codes, which are no secrets.

A short code is shown in a terminal and in the browser and compared by eye: that both belong together.
"""

from __future__ import annotations

import hashlib
import re
import secrets

API_TOKEN_PREFIX = "gka_"  # noqa: S105  recognisable to scanners for leaked secrets
MOST_CHARACTERS = 256
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
# Consonants without look-alikes (RFC 8628 §6.1): no words, and nothing to mistake.
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_SHORT = 8


def fresh_token(prefix: str = "") -> str:
    """A token of 256 random bits, base64url."""
    return prefix + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """The SHA-256 kept of a token. Plain hashing is enough: there are 256 random bits to guess."""
    return hashlib.sha256(token.encode()).digest()


def is_token(text: str) -> bool:
    """Whether text has the form of a token without prefix; anything else is none of ours."""
    return _TOKEN.fullmatch(text) is not None


def new_short_code() -> str:
    """A random one, such as `BCDF-GHJK`."""
    return _spelled(secrets.randbelow(len(LETTERS) ** _SHORT))


def short_code_of(text: str) -> str:
    """The one of a text that both sides know; the command line makes it the same way (`guestkey.cli.loopback`)."""
    return _spelled(int.from_bytes(hashlib.sha256(text.encode()).digest()))


def _spelled(number: int) -> str:
    letters = ""
    for _ in range(_SHORT):
        number, at = divmod(number, len(LETTERS))
        letters += LETTERS[at]
    return f"{letters[:4]}-{letters[4:]}"
