"""The operator's hands on the embedded OpenBao: connecting what holds data, and accounts of the example provider.

Uses the `guestkey-operator` identity, which no running part of the broker holds. Speaks HTTP itself, because the
broker's own `vault.py` deliberately offers none of this.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from broker.embedded.openbao import OpenBao
from broker.embedded.postgres import Postgres
from broker.embedded.seaweedfs import CONNECTION, SeaweedFS
from broker.operator.connecting.keystore import USERNAME_TEMPLATE

PROVIDER = "guestkey"
_ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


@dataclass(frozen=True, slots=True)
class OidcClient:
    """What a sign-in source needs of the example provider."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MadeAccount:
    """An account of the example provider: its password, and the `sub` its tokens will carry."""

    subject: str
    password: str = field(repr=False)


class Operator:
    """A log-in of the operator identity."""

    def __init__(self, bao: OpenBao) -> None:
        self._bao = bao
        self._token = ""
        secret_id = bao.secret_id_file("guestkey-operator").read_text()
        login = self._call("POST", "auth/approle/login", {"role_id": "guestkey-operator", "secret_id": secret_id})
        self._token = login["auth"]["client_token"]

    def connect_database(self, postgres: Postgres, name: str = "data") -> None:
        """Connect a server's `data`: the minter's password becomes OpenBao's alone, the others go to its store."""
        self._call(
            "POST",
            f"database/config/{name}",
            {
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": ["gk-*"],
                "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:"
                f"{postgres.port}/data?sslmode=disable",
                "username": "guestkey_minter",
                "password": postgres.passwords["minter"],
                "password_authentication": "scram-sha-256",
                "username_template": USERNAME_TEMPLATE,
                "max_open_connections": 8,
            },
        )
        self._call("POST", f"database/rotate-root/{name}", {})
        for login in ("registrar", "watch"):
            self.let_in(name, login, postgres.url(login, "data"))

    def let_in(self, connection: str, login: str, url: str) -> None:
        """Tell the key store how the broker logs in to a connection, as its registrar or watch."""
        self._call("POST", f"guestkey/data/connections/{connection}/{login}", {"data": {"url": url}})

    def connect_store(self, store: SeaweedFS) -> None:
        """Connect the object store: the two long-term keys go to OpenBao's store."""
        for identity in ("issuer", "ender"):
            key = store.key(identity)
            kept = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
            self._call("POST", f"guestkey/data/connections/{CONNECTION}/s3-{identity}", {"data": kept})

    def rotate_key(self, name: str) -> None:
        """Give a transit key a new version; older ones go on decrypting and verifying."""
        self._call("POST", f"transit/keys/{name}/rotate", {})

    def make_provider(self, redirect_uris: list[str]) -> OidcClient:
        """Make (or update) the example OIDC provider and its one client."""
        self._call("POST", "identity/oidc/key/guestkey", {"algorithm": "ES256", "allowed_client_ids": ["*"]})
        email = '{"email": {{identity.entity.metadata.email}}, "email_verified": true}'
        self._scope("email", email)
        self._scope(
            "profile", '{"name": {{identity.entity.metadata.name}}, "party": {{identity.entity.metadata.party}}}'
        )
        self._call(
            "POST",
            f"identity/oidc/client/{PROVIDER}",
            {
                "redirect_uris": redirect_uris,
                "assignments": ["allow_all"],
                "key": "guestkey",
                "id_token_ttl": "5m",
                "client_type": "confidential",
            },
        )
        client = self._call("GET", f"identity/oidc/client/{PROVIDER}")["data"]
        self._call(
            "POST",
            f"identity/oidc/provider/{PROVIDER}",
            {
                "issuer": self._bao.address,
                "allowed_client_ids": [client["client_id"]],
                "scopes_supported": ["email", "profile"],
            },
        )
        issuer = f"{self._bao.address}/v1/identity/oidc/provider/{PROVIDER}"
        return OidcClient(issuer, client["client_id"], client["client_secret"])

    def set_password(self, username: str) -> str:
        """Give an account a new generated password, kept nowhere else; the old one stops working."""
        password = _password()
        self._call("POST", f"auth/userpass/users/{username}", {"password": password})
        return password

    def make_account(self, username: str, name: str, email: str, party: str) -> MadeAccount:
        """Make a password account of the example provider; its generated password is kept nowhere else."""
        password = _password()
        # A text, not a list: the operator's policy allows this one value.
        self._call(
            "POST", f"auth/userpass/users/{username}", {"password": password, "token_policies": "guestkey-sign-in"}
        )
        metadata = {"email": email, "name": name, "party": party}
        entity_id = self._call("POST", "identity/entity", {"name": username, "metadata": metadata})["data"]["id"]
        accessor = self._call("GET", "sys/auth")["data"]["userpass/"]["accessor"]
        self._call(
            "POST",
            "identity/entity-alias",
            {"name": username, "canonical_id": entity_id, "mount_accessor": accessor},
        )
        return MadeAccount(entity_id, password)

    def _scope(self, name: str, template: str) -> None:
        encoded = base64.b64encode(template.encode()).decode()
        self._call("POST", f"identity/oidc/scope/{name}", {"template": encoded})

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"X-Vault-Token": self._token} if self._token else {}
        answer = requests.request(method, f"{self._bao.address}/v1/{path}", json=body, headers=headers, timeout=10)
        if not answer.ok:
            raise RuntimeError(f"OpenBao refused {method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else {}


def _password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))
