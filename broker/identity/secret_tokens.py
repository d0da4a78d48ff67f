"""Random tokens that are handed out once and kept as hashes."""

from __future__ import annotations

import hashlib
import re
import secrets

API_TOKEN_PREFIX = "gka_"  # noqa: S105  recognisable to scanners for leaked secrets
MOST_CHARACTERS = 256
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def fresh_token(prefix: str = "") -> str:
    """A token of 256 random bits, base64url."""
    return prefix + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """The SHA-256 kept of a token. Plain hashing is enough: there are 256 random bits to guess."""
    return hashlib.sha256(token.encode()).digest()


def is_token(text: str) -> bool:
    """Whether text has the form of a token without prefix; anything else is none of ours."""
    return _TOKEN.fullmatch(text) is not None
