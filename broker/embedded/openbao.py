"""The embedded OpenBao: the real `bao`, raft storage, static seal, audit file, set up without any root token.

Its `initialize` stanza makes mounts, keys, policies and the AppRole identities on the first start. Afterwards nobody
can change those but the identities it made: `Operator` has that of `guestkey-operator`, which no running part of the
broker holds, and connects what holds data and makes accounts of the example provider.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from broker.embedded import children
from broker.embedded.postgres import Postgres
from broker.embedded.seaweedfs import CONNECTION, SeaweedFS
from broker.keystore.operator import OperatorStore

IDENTITIES = ("guestkey-issuer", "guestkey-ender", "guestkey-setup", "guestkey-operator", "guestkey-custodian")
POLICIES = Path(__file__).with_name("bao")
# What every deployment needs, and what only the example identity provider of one machine does.
INITIALIZE = Path(__file__).with_name("initialize.hcl")
_EXAMPLE_PROVIDER = Path(__file__).with_name("example_provider.hcl")
# Name, path and data of one request.
InitialRequest = tuple[str, str, Mapping[str, Any]]
_SECRET_ID = re.compile(r"/run/secrets/guestkey_(\w+)_secret_id")
PROVIDER = "guestkey"
_ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class OpenBao(children.Server):
    """One OpenBao server under a state folder. `more` are further requests of its initialisation."""

    name = "OpenBao"

    def __init__(self, state: Path, port: int, cluster_port: int, *, more: Sequence[InitialRequest] = ()) -> None:
        self._more = more
        self.state = state
        self.port = port
        self._cluster_port = cluster_port
        self.address = f"http://127.0.0.1:{port}"
        self.audit_log = state / "audit.log"
        super().__init__(state / "openbao.log")

    def secret_id_file(self, identity: str) -> Path:
        """Where the secret id of an AppRole identity lies (mode 0600)."""
        return self.state / f"{identity}.secret-id"

    def launch(self) -> None:
        """Start without waiting."""
        children.require_free(self.port, "OpenBao")
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.state / "raft").mkdir(exist_ok=True, mode=0o700)
        made: dict[Path, str | bytes] = {self.state / "seal.key": secrets.token_bytes(32)}
        made |= {self.secret_id_file(identity): secrets.token_urlsafe(32) for identity in IDENTITIES}
        for file, secret in made.items():
            if not file.exists():
                children.write_private(file, secret)
        config = self.state / "openbao.hcl"
        config.write_text(render_config(self.state, self.port, self._cluster_port) + self._initialize())
        self._child = children.start([binary(), "server", f"-config={config}", "-log-level=warn"], log=self.log)

    def _initialize(self) -> str:
        """The requests of the first start, with the files where they lie here."""
        text = (INITIALIZE.read_text() + _EXAMPLE_PROVIDER.read_text()).replace("/openbao/policies", str(POLICIES))
        text = _SECRET_ID.sub(lambda found: str(self.secret_id_file(f"guestkey-{found[1]}")), text)
        return text + 'initialize "more" {\n' + "".join(_request(*request) for request in self._more) + "}\n"

    def _healthy(self) -> bool:
        try:
            return requests.get(f"{self.address}/v1/sys/health", timeout=2).status_code == 200
        except requests.RequestException:
            return False


def binary() -> Path:
    """The `bao` program."""
    return children.program("bao", "OpenBao")


def render_config(state: Path, port: int, cluster_port: int) -> str:
    """The server's configuration, without its initialisation."""
    return f"""
ui           = true
# A standby that is cut off from its leader would go on using keys and tokens that were deleted or revoked since.
disable_standby_reads = true
api_addr     = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
listener "tcp" {{
  address         = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable     = true
}}
storage "raft" {{
  path                   = {json.dumps(str(state / "raft"))}
  node_id                = "embedded"
  performance_multiplier = 1
}}
seal "static" {{
  current_key_id = "embedded-1"
  current_key    = {json.dumps(f"file://{state / 'seal.key'}")}
}}
audit "file" "main" {{
  options {{
    file_path = {json.dumps(str(state / "audit.log"))}
    mode      = "0600"
  }}
}}
"""


def _request(name: str, path: str, data: Mapping[str, Any]) -> str:
    fields = "".join(f"      {key} = {json.dumps(value)}\n" for key, value in data.items())
    return (
        f'  request "{name}" {{\n    operation = "update"\n    path = "{path}"\n    data = {{\n{fields}    }}\n  }}\n'
    )


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
        wanted = {"redirect_uris": redirect_uris, "assignments": ["allow_all"], "key": "guestkey"}
        wanted |= {"id_token_ttl": "5m", "client_type": "confidential"}
        self._call("POST", f"identity/oidc/client/{PROVIDER}", wanted)
        client = self._call("GET", f"identity/oidc/client/{PROVIDER}")["data"]
        served = {"issuer": self._address, "allowed_client_ids": [client["client_id"]]}
        served["scopes_supported"] = ["email", "profile"]
        self._call("POST", f"identity/oidc/provider/{PROVIDER}", served)
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
        account = {"password": password, "token_policies": "guestkey-sign-in"}
        self._call("POST", f"auth/userpass/users/{username}", account)
        metadata = {"email": email, "name": name, "party": party}
        entity_id = self._call("POST", "identity/entity", {"name": username, "metadata": metadata})["data"]["id"]
        accessor = self._call("GET", "sys/auth")["data"]["userpass/"]["accessor"]
        alias = {"name": username, "canonical_id": entity_id, "mount_accessor": accessor}
        self._call("POST", "identity/entity-alias", alias)
        return MadeAccount(entity_id, password)

    def _scope(self, name: str, template: str) -> None:
        encoded = base64.b64encode(template.encode()).decode()
        self._call("POST", f"identity/oidc/scope/{name}", {"template": encoded})


def _password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))
