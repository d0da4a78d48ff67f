"""Random tokens that are handed out once and kept as hashes."""

from __future__ import annotations

import hashlib
import secrets

API_TOKEN_PREFIX = "gka_"  # noqa: S105  recognisable to scanners for leaked secrets
MOST_CHARACTERS = 256


def fresh_token(prefix: str = "") -> str:
    """A token of 256 random bits, base64url."""
    return prefix + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """The SHA-256 kept of a token. Plain hashing is enough: there are 256 random bits to guess."""
    return hashlib.sha256(token.encode()).digest()
