"""Kind `token`: a signed access token (RFC 9068 JWT) for whoever guards the data itself.

Nothing is made at a backend: the record is written as active, and transit signs, with a key that cannot be exported.
With OpenBao sealed there is no token.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from threading import Lock
from time import monotonic
from typing import Any

from joserfc.jwk import ECKey

from broker.credentials.base import Ending, Issued, LeaseToEnd, LeaseToIssue
from broker.errors import BackendDown, Invalid
from broker.vault import ChildToken, Vault, VaultRefused

SIGNING_KEY = "tokens"
ALGORITHM = "ES256"
_KEYS_KEPT = 60.0


class SigningKeys:
    """Public halves of every version of the signing key, kept for a minute. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._at = -_KEYS_KEPT
        self._newest = 0
        self._public: dict[int, str] = {}

    def newest(self, vault: Vault) -> int:
        """The version that signs.

        Raises:
            BackendDown: OpenBao does not answer.
        """
        self._refresh(vault)
        return self._newest

    def public_jwks(self, vault: Vault) -> list[dict[str, Any]]:
        """The JWK Set's keys (RFC 7517), every version, the newest first.

        Raises:
            BackendDown: OpenBao does not answer.
        """
        self._refresh(vault)
        keys = []
        for version, pem in sorted(self._public.items(), reverse=True):
            jwk = dict(ECKey.import_key(pem).as_dict(private=False))
            keys.append({**jwk, "kid": key_id(version), "use": "sig", "alg": ALGORITHM})
        return keys

    def _refresh(self, vault: Vault) -> None:
        with self._lock:
            if monotonic() - self._at < _KEYS_KEPT:
                return
        try:
            newest, public = vault.public_keys(SIGNING_KEY)
        except VaultRefused as error:
            raise BackendDown(
                "The signing key cannot be used.", backend="openbao", advice="Tell the operator."
            ) from error
        with self._lock:
            self._at, self._newest, self._public = monotonic(), newest, public


signing_keys = SigningKeys()


def key_id(version: int) -> str:
    """The `kid` of a version of the signing key."""
    return f"{SIGNING_KEY}-{version}"


def audience_of(issuer: str, dataset: str) -> str:
    """What a token for a dataset is good for: the `aud` claim, and RFC 8707's `resource`."""
    return f"{issuer}/datasets/{dataset}"


class TokenKind:
    """See `broker.credentials.base.Kind`."""

    name = "token"
    actions = frozenset({"read", "write"})
    needs_child_token = False
    ending = Ending(
        how="Introspection answers `active: false` at once, on every replica. Whoever verifies the signature alone"
        " accepts the token until it expires.",
        new_sessions=1,
        open_sessions=1,
        worst_case=None,
    )

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """A slice that is only ever guarded by tokens has nothing to bind to.

        Raises:
            Invalid: something is bound all the same.
        """
        if binding:
            raise Invalid("A slice of kind token has an empty binding.", field="/binding")
        return {}

    def policies(self, slice_id: str) -> list[str]:
        """No child token, no policy."""
        return []

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Sign the token of a lease that is recorded as active already."""
        version = signing_keys.newest(vault)
        header = {"alg": ALGORITHM, "typ": "at+jwt", "kid": key_id(version)}
        issued_at, expires_at = int(lease.issued_at.timestamp()), int(lease.expires_at.timestamp())
        audience = audience_of(lease.issuer, lease.dataset)
        claims = {
            "iss": lease.issuer,
            "sub": lease.subject,
            "aud": audience,
            "client_id": lease.subject,
            "iat": issued_at,
            "exp": expires_at,
            "jti": lease.id,
            "scope": lease.action,
            "slice": lease.slice,
        }
        signing_input = f"{_encoded(header)}.{_encoded(claims)}"
        try:
            signature = vault.sign_jws(SIGNING_KEY, signing_input.encode(), version=version)
        except VaultRefused as error:
            raise BackendDown(
                "The key store refused to sign.", backend="openbao", advice="Tell the operator."
            ) from error
        values = {
            "access_token": f"{signing_input}.{signature}",
            "token_type": "Bearer",
            "audience": audience,
            "slice": lease.slice,
            "expires_at": lease.expires_at.isoformat(),
        }
        return Issued(values=values)

    def activate(self, vault: Vault, lease: LeaseToIssue, issued: Issued) -> None:
        """Nothing to lengthen: a token says itself when it ends."""

    def end(self, vault: Vault, lease: LeaseToEnd) -> str:
        """The record is all there is: introspection reads it."""
        return "introspection: inactive"

    def handles(self, vault: Vault, tag: str, bindings: list[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """No backend shows tokens."""
        return {}


def _encoded(part: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).rstrip(b"=").decode()
