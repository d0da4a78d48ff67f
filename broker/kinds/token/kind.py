"""Kind `token`: a signed access token (RFC 9068 JWT) for whoever guards the data itself.

Nothing is made at a backend: the record is written as active, and transit signs, with a key that cannot be exported.
With OpenBao sealed there is no token.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from broker.base.errors import Invalid
from broker.keystore.vault import ChildToken, Vault
from broker.kinds.access_tokens import ALGORITHM, HEADER_TYPE, SIGNING_KEY, audience_of, key_id, scope_of, signing_keys
from broker.kinds.base import TELL_THE_OPERATOR, Kind, refused_as
from broker.kinds.values import Ending, Issued, LeaseToEnd, LeaseToIssue, Use

# The portal and the command line: which of the two a person used says nothing about what the token may do.
OWN_CLIENT = "guestkey"


class TokenKind(Kind):
    """See `broker.kinds.base.Kind`."""

    name = "token"
    position = 60
    at_backend = False
    is_access_token = True
    ending = Ending(
        how="Introspection answers `active: false` at once, on every replica. Services that verify only the"
        " signature accept the token until it expires.",
        new_sessions=1,
        open_sessions=1,
        worst_case=None,
    )
    use = Use(
        about="A signed access token, for a service that guards the data itself.",
        secrets=frozenset({"access_token"}),
        command="guestkey get {dataset} --slice {slice} --kind token",
        command_says="Gets a new token and prints it, once.",
    )

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """A slice that is only ever guarded by tokens has nothing to bind to."""
        if binding:
            raise Invalid("A slice of kind token has an empty binding.", field="/binding")
        return {}

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """curl, which reads the header from a file: nothing secret in the shell's history or among the processes."""
        says = "Write “Authorization: Bearer ” and the token into bearer.txt, which only you can read."
        return says, "curl --header @bearer.txt https://SERVICE/"

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Sign the token of a lease that is recorded as active already."""
        version = signing_keys.signing(vault)
        header = {"alg": ALGORITHM, "typ": HEADER_TYPE, "kid": key_id(version)}
        issued_at, expires_at = int(lease.issued_at.timestamp()), int(lease.expires_at.timestamp())
        audience = audience_of(lease.issuer, lease.dataset)
        party, _, id_ = lease.subject.partition(":")
        claims = {
            "iss": lease.issuer,
            "sub": lease.subject,
            "aud": audience,
            # The client it is issued to (RFC 9068, 2.2): a service is its own; people come through ours.
            "client_id": id_ if party == "service" else OWN_CLIENT,
            "iat": issued_at,
            "exp": expires_at,
            "jti": lease.id,
            # As the answer beside it says (RFC 9068, 2.2.3).
            "scope": scope_of(lease.action, lease.slice),
            "dataset": lease.dataset,
            "slice": lease.slice,
        }
        signing_input = f"{_encoded(header)}.{_encoded(claims)}"
        with refused_as("The key store refused to sign.", TELL_THE_OPERATOR, lease=lease.id):
            signature = vault.sign_jws(SIGNING_KEY, signing_input.encode(), version=version)
        values = {
            "access_token": f"{signing_input}.{signature}",
            "token_type": "Bearer",
            "audience": audience,
            "slice": lease.slice,
            "expires_at": lease.expires_at.isoformat(),
        }
        return Issued(values=values)

    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """The record is all there is: introspection reads it."""
        return {lease.id: "introspection: inactive" for lease in leases}


def _encoded(part: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).rstrip(b"=").decode()


KIND = TokenKind()
