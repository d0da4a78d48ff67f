"""The operator's hands on the embedded OpenBao: connecting what holds data, and accounts of the example provider.

Uses the `guestkey-operator` identity, which no running part of the broker holds.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

from broker.embedded.openbao import OpenBao
from broker.embedded.postgres import Postgres
from broker.embedded.seaweedfs import CONNECTION, SeaweedFS
from broker.keystore.operator import OperatorStore

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


class Operator(OperatorStore):
    """A log-in of the operator identity."""

    def __init__(self, bao: OpenBao) -> None:
        super().__init__(bao.address, None)
        self._address = bao.address
        self._log_in(bao.secret_id_file("guestkey-operator").read_text())

    def connect_database(self, postgres: Postgres, name: str = "data") -> None:
        """Connect a server's `data`: the minter's password becomes OpenBao's alone, the others go to its store."""
        plugin = {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/data?sslmode=disable",
            "username": "guestkey_minter",
            "password": postgres.passwords["minter"],
            "password_authentication": "scram-sha-256",
        }
        self.configure(name, plugin)
        self.rotate(name)
        for login in ("registrar", "watch"):
            self.set_login_url(name, login, postgres.url(login, "data"))

    def set_login_url(self, connection: str, login: str, url: str) -> None:
        """Tell the key store how the broker logs in to a connection, as its registrar or watch."""
        self.keep(f"{connection}/{login}", {"url": url})

    def connect_store(self, store: SeaweedFS) -> None:
        """Connect the object store: the two long-term keys go to OpenBao's store."""
        for identity in ("issuer", "ender"):
            key = store.key(identity)
            kept = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
            self.keep(f"{CONNECTION}/s3-{identity}", kept)

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
                "issuer": self._address,
                "allowed_client_ids": [client["client_id"]],
                "scopes_supported": ["email", "profile"],
            },
        )
        issuer = f"{self._address}/v1/identity/oidc/provider/{PROVIDER}"
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


def _password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))
