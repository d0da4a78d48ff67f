"""Opaque secrets we hand out once: sessions, API tokens, invitations, attempts. We keep their hashes, never them.

A plain SHA-256 suffices: the secrets are 256 random bits, so there is nothing to guess and nothing to stretch.
"""

from __future__ import annotations

import hashlib
import re
import secrets

API_TOKEN_PREFIX = "gka_"  # noqa: S105  lets scanners of leaked secrets recognise one
_FORM = re.compile(r"(?:gka_)?[A-Za-z0-9_-]{43}")


def new_secret(prefix: str = "") -> str:
    """A fresh secret of 256 random bits in URL-safe text, after the prefix."""
    return prefix + secrets.token_urlsafe(32)


def hash_of(secret: str) -> bytes:
    """What is kept of a secret: its SHA-256."""
    return hashlib.sha256(secret.encode()).digest()


def well_formed(secret: str) -> bool:
    """Whether text can be a secret of ours at all; everything else need not be looked up."""
    return _FORM.fullmatch(secret) is not None
