"""Short codes shown in a terminal and in the browser, compared by eye: that both belong together. Never secrets."""

from __future__ import annotations

import hashlib
import secrets

# Consonants without look-alikes (RFC 8628 §6.1): no words, and nothing to mistake.
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_LENGTH = 8


def new_short_code() -> str:
    """A random one, such as `BCDF-GHJK`."""
    return _spelled(secrets.randbelow(len(LETTERS) ** _LENGTH))


def short_code_of(text: str) -> str:
    """The one of a text that both sides know; the command line makes it the same way (`guestkey.cli.loopback`)."""
    return _spelled(int.from_bytes(hashlib.sha256(text.encode()).digest()))


def _spelled(number: int) -> str:
    letters = ""
    for _ in range(_LENGTH):
        number, at = divmod(number, len(LETTERS))
        letters += LETTERS[at]
    return f"{letters[:4]}-{letters[4:]}"
