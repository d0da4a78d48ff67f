"""The embedded OpenBao: the real `bao`, raft storage, static seal, audit file, set up without any root token.

Its `initialize` stanza makes mounts, keys, policies and the AppRole identities on the first start. Afterwards nobody
can change those but the identities it made.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from broker.embedded import children

IDENTITIES = ("guestkey-issuer", "guestkey-ender", "guestkey-setup", "guestkey-operator", "guestkey-custodian")
POLICIES = Path(__file__).with_name("bao")
# What every deployment needs, and what only the example identity provider of one machine does.
INITIALIZE = Path(__file__).with_name("initialize.hcl")
_EXAMPLE_PROVIDER = Path(__file__).with_name("example_provider.hcl")
# Name, path and data of one request.
InitialRequest = tuple[str, str, Mapping[str, Any]]
_SECRET_ID = re.compile(r"/run/secrets/guestkey_(\w+)_secret_id")


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
        """Start without waiting.

        Raises:
            StartFailed: a port is taken.
        """
        children.require_free(self.port, "OpenBao")
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.state / "raft").mkdir(exist_ok=True, mode=0o700)
        _keep_secret(self.state / "seal.key", secrets.token_bytes(32))
        for identity in IDENTITIES:
            _keep_secret(self.secret_id_file(identity), secrets.token_urlsafe(32).encode())
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


def _keep_secret(path: Path, value: bytes) -> None:
    """Write a secret once, never readable by others, not even for an instant."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(value)
