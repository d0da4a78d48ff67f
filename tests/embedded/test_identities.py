"""The broker's identities in OpenBao: each can do its work and nothing that would make it root in effect."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from broker.embedded.openbao import IDENTITIES
from broker.embedded.stack import Stack

LEASE = {"meta": {"lease": "l"}, "display_name": "abcdef-l1", "policies": ["guestkey-lease-gk-x"], "ttl": "60s"}
EVIL = {"policy": 'path "*" { capabilities = ["sudo", "create", "read", "update", "delete", "list"] }'}

# What nobody who runs may do, whoever it is.
ROOT_IN_EFFECT: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "transit/keys/tokens/config", {"exportable": True}),
    ("POST", "transit/keys/totp/config", {"deletion_allowed": True}),
    ("GET", "transit/export/signing-key/tokens", {}),
    ("GET", "transit/backup/tokens", {}),
    ("POST", "transit/keys/new", {}),
    ("POST", "sys/policies/acl/guestkey-issuer", EVIL),
    ("POST", "sys/policies/acl/root2", EVIL),
    ("POST", "auth/token/create", {"policies": ["root"]}),
    ("POST", "auth/token/create-orphan", {"policies": ["guestkey-setup"]}),
    ("POST", "auth/token/roles/guestkey-lease", {"allowed_policies": ["root"]}),
    ("POST", "auth/approle/role/guestkey-setup/secret-id", {}),
    ("POST", "sys/mounts/other", {"type": "kv"}),
    ("POST", "sys/auth/other", {"type": "userpass"}),
    ("POST", "sys/seal", {}),
    ("GET", "sys/raw/core", {}),
    ("POST", "sys/audit/other", {"type": "file"}),
    ("POST", "sys/generate-root/attempt", {}),
    ("POST", "ssh/config/ca", {"generate_signing_key": True}),
    ("DELETE", "ssh/config/ca", {}),
    ("POST", "ssh/roles/guestkey-ender", {"key_type": "ca", "allowed_users": "*"}),
    ("POST", "ssh/sign/gk-x-read", {"public_key": "x", "valid_principals": "root"}),
    ("POST", "transit/keys/ssh-lists/config", {"exportable": True}),
]
ALSO_NOT: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "guestkey-issuer": [
        ("POST", "sys/leases/revoke", {"lease_id": "x"}),
        ("PUT", "sys/leases/revoke-prefix/database", {}),
        ("POST", "sys/policies/acl/guestkey-lease-gk-x", EVIL),
        ("POST", "database/roles/gk-x", {"db_name": "data", "creation_statements": ["SELECT 1"]}),
        ("GET", "database/creds/gk-x", {}),
        ("GET", "guestkey/data/connections/data/registrar", {}),
        ("GET", "guestkey/data/connections/data/watch", {}),
        ("POST", "transit/decrypt/tokens", {"ciphertext": "vault:v1:x"}),
        ("POST", "auth/token/create/guestkey-lease", {"policies": ["guestkey-lease-gk-x"], "display_name": "x"}),
        ("POST", "auth/token/create/guestkey-lease", LEASE | {"policies": ["guestkey-setup"]}),
        ("POST", "auth/token/create/guestkey-lease", LEASE | {"policies": ["root"]}),
        ("POST", "auth/token/create/guestkey-lease", LEASE | {"id": "chosen"}),
        ("POST", "ssh/roles/gk-x-read", {"key_type": "ca", "allowed_users": "*"}),
        ("POST", "ssh/sign/guestkey-ender", {"public_key": "x"}),
        ("POST", "ssh/sign/guestkey-setup", {"public_key": "x"}),
    ],
    "guestkey-ender": [
        ("POST", "auth/token/create/guestkey-lease", LEASE),
        ("GET", "database/creds/gk-x", {}),
        ("GET", "guestkey/data/connections/data/registrar", {}),
        ("POST", "transit/decrypt/totp", {"ciphertext": "vault:v1:x", "context": "eA=="}),
        ("POST", "sys/policies/acl/guestkey-lease-gk-x", EVIL),
    ],
    "guestkey-setup": [
        ("POST", "ssh/sign/guestkey-ender", {"public_key": "x"}),
        ("POST", "auth/token/create/guestkey-lease", LEASE),
        ("GET", "database/creds/gk-x", {}),
        ("POST", "database/roles/other", {"db_name": "data"}),
        ("POST", "database/config/data", {"plugin_name": "postgresql-database-plugin"}),
        ("POST", "transit/decrypt/totp", {"ciphertext": "vault:v1:x", "context": "eA=="}),
    ],
    "guestkey-operator": [
        ("POST", "auth/token/create/guestkey-lease", LEASE),
        ("GET", "database/creds/gk-x", {}),
        ("POST", "transit/decrypt/totp", {"ciphertext": "vault:v1:x", "context": "eA=="}),
    ],
}


def log_in(stack: Stack, identity: str) -> requests.Session:
    """A session of an identity."""
    secret_id = stack.bao.secret_id_file(identity).read_text()
    body = {"role_id": identity, "secret_id": secret_id}
    answer = requests.post(f"{stack.bao.address}/v1/auth/approle/login", json=body, timeout=10)
    session = requests.Session()
    session.headers["X-Vault-Token"] = answer.json()["auth"]["client_token"]
    return session


@pytest.mark.parametrize("identity", sorted(ALSO_NOT))
def test_no_identity_has_root_rights(stack: Stack, identity: str) -> None:
    session = log_in(stack, identity)
    allowed = []
    for method, path, body in [*ROOT_IN_EFFECT, *ALSO_NOT[identity]]:
        answer = session.request(method, f"{stack.bao.address}/v1/{path}", json=body or None, timeout=10)
        if answer.status_code not in (400, 403, 404, 405):
            allowed.append((method, path, answer.status_code))
        # 400 and 404 only count as refused where the policy did not let it through to an existing thing.
        if answer.status_code in (400, 404) and "permission denied" not in answer.text:
            assert path in ("sys/raw/core", "auth/token/create/guestkey-lease"), (path, answer.text)
    session.close()
    assert allowed == []


def test_every_identity_except_the_custodian_is_checked(stack: Stack) -> None:
    """The custodian is root in effect, and says so: nothing of the broker logs in with it."""
    assert set(IDENTITIES) - set(ALSO_NOT) == {"guestkey-custodian"}
    assert not any("CUSTODIAN" in name for name in stack.environment())


def test_no_root_token_was_ever_handed_out(stack: Stack) -> None:
    """Nothing in the state folder or the logs is a root token, and none can be generated."""
    for file in stack.state.rglob("*"):
        if file.is_file() and file.suffix in (".log", ".json", ".hcl", ".secret-id"):
            assert "root_token" not in file.read_text(errors="replace")
    answer = requests.put(f"{stack.bao.address}/v1/sys/init", json={"recovery_shares": 1}, timeout=10)
    assert answer.status_code == 400


@pytest.mark.parametrize("file", ["seal.key", "audit.log", "guestkey-issuer.secret-id", "guestkey-setup.secret-id"])
def test_secret_files_are_private(stack: Stack, file: str) -> None:
    assert (stack.bao.state / file).stat().st_mode & 0o077 == 0


def test_the_issuer_can_make_a_lease_token_and_sign(stack: Stack) -> None:
    session = log_in(stack, "guestkey-issuer")
    made = session.post(f"{stack.bao.address}/v1/auth/token/create/guestkey-lease", json=LEASE, timeout=10).json()[
        "auth"
    ]
    assert made["token_policies"] == ["guestkey-lease-gk-x"]
    assert made["token_type"] == "batch"
    assert made["orphan"]
    assert made["lease_duration"] == 60
    signed = session.post(f"{stack.bao.address}/v1/transit/sign/tokens", json={"input": "eA=="}, timeout=10)
    assert signed.status_code == 200
    session.close()
