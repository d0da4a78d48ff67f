"""Signed access tokens (RFC 9068): the key they are signed with, and what they say they are good for.

The kind `token` makes them; the authorization server publishes the keys and answers for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any

from joserfc.jwk import ECKey

from broker.keystore.vault import Vault
from broker.kinds.base import TELL_THE_OPERATOR, refused_as

SIGNING_KEY = "tokens"
ALGORITHM = "ES256"
HEADER_TYPE = "at+jwt"
KEYS_KEPT = 60.0
# A new version signs only once every replica shows it and no verifier can still hold a set from before.
PUBLISHED_BEFORE_USE = 2 * KEYS_KEPT


class SigningKeys:
    """Public halves of every version of the signing key, kept for a minute. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._read_at = -math.inf
        self._public: dict[int, str] = {}
        self._first_seen: dict[int, float] = {}

    def signing(self, vault: Vault) -> int:
        """The version that signs: the newest that has been public long enough, or the newest if none has."""
        self._refresh(vault)
        now = self._clock()
        with self._lock:
            settled = [version for version, at in self._first_seen.items() if now - at >= PUBLISHED_BEFORE_USE]
            return max(settled or self._first_seen)

    def public_jwks(self, vault: Vault) -> list[dict[str, Any]]:
        """The JWK Set's keys (RFC 7517), every version, the newest first."""
        self._refresh(vault)
        with self._lock:
            public = sorted(self._public.items(), reverse=True)
        keys = []
        for version, pem in public:
            jwk = dict(ECKey.import_key(pem).as_dict(private=False))
            keys.append({**jwk, "kid": key_id(version), "use": "sig", "alg": ALGORITHM})
        return keys

    def _refresh(self, vault: Vault) -> None:
        began = self._clock()
        with self._lock:
            if began - self._read_at < KEYS_KEPT:
                return
        with refused_as("The signing key cannot be used.", TELL_THE_OPERATOR):
            _, public = vault.public_keys(SIGNING_KEY)
        with self._lock:
            # What was there when this process began was public before it, on the replicas that served until then.
            since = began if self._first_seen else -math.inf
            self._first_seen = {version: self._first_seen.get(version, since) for version in public}
            self._read_at, self._public = began, public


signing_keys = SigningKeys()


def key_id(version: int) -> str:
    """The `kid` of a version of the signing key."""
    return f"{SIGNING_KEY}-{version}"


def scope_of(action: str, slice_name: str) -> str:
    """The scope a token is good for: one action on one slice, as it can be asked for."""
    return f"{action} slice:{slice_name}"


def audience_of(issuer: str, dataset: str) -> str:
    """What a token for a dataset is good for: the `aud` claim, and RFC 8707's `resource`."""
    return f"{issuer}/datasets/{dataset}"
