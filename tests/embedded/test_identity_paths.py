"""Every path OpenBao has, put to every identity: asked for as a capability, and really tried where it must be refused.

The paths come from OpenBao's own description, so a new engine or release brings its paths along. What an identity may
do is written down here a second time, on purpose: whoever widens a policy has to say so in both places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests

from broker.embedded.children import free_port
from broker.embedded.openbao import IDENTITIES, OpenBao

# What stands for the names in OpenBao's description: nothing of ours, a slice's, an identity's, and keys of ours.
NAMES = ("x", "gk-x", "gk-probe-x", "guestkey", "guestkey-custodian", "guestkey-lease-gk-x", "guestkey-ender")
KEYS = ("totp", "tokens", "sources", "channels", "checkpoints", "ssh-lists")
# Tried in earnest with fewer names: the rest would be refused by the same lines of a policy.
NOT_TRIED = {"gk-probe-x", "guestkey", "guestkey-lease-gk-x", "guestkey-ender", "sources", "channels", "checkpoints"}
# Open to whoever holds a wrapping token, and only for what that token wraps.
FOR_WRAPPED_TOKENS = {"sys/wrapping/rewrap", "sys/wrapping/unwrap"}
EVERYTHING = 'path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"] }'
# Only the tests' own server has an identity that may ask what another may do.
EXAMINER = (
    ("policy-examiner", "sys/policies/acl/examiner", {"policy": EVERYTHING}),
    (
        "role-examiner",
        "auth/approle/role/examiner",
        {"token_policies": ["examiner"], "bind_secret_id": False, "token_bound_cidrs": ["127.0.0.1/32"]},
    ),
    ("role-id-examiner", "auth/approle/role/examiner/role-id", {"role_id": "examiner"}),
)
LEASE = {"meta": {"lease": "l"}, "display_name": "abcdef-l1", "policies": ["guestkey-lease-gk-x"], "ttl": "60s"}
METHODS = {"get": "GET", "post": "POST", "delete": "DELETE"}
# Path (`*` within one part of it) and capabilities, a line each; what is not here is refused.
ALLOWED = {
    "guestkey-issuer": """
        auth/token/lookup-self read
        auth/token/renew-self update
        guestkey/data/connections/data/s3-issuer read
        guestkey/data/witness read
        ssh/config/ca read
        sys/config/state/sanitized read
        sys/leases/renew update
        transit/decrypt/sources update
        transit/decrypt/totp update
        transit/encrypt/channels update
        transit/encrypt/sources update
        transit/encrypt/totp update
        transit/keys/ssh-lists read
        transit/keys/tokens read
        transit/sign/ssh-lists update
        transit/sign/tokens update
    """,
    "guestkey-ender": """
        auth/token/lookup-self read
        auth/token/renew-self update
        guestkey/data/connections/data/s3-ender read
        guestkey/data/connections/data/watch read
        guestkey/data/endings/x create read update
        guestkey/data/witness create read update
        pki/certs list
        pki/crl/rotate read
        pki/revoke update
        ssh/sign/guestkey-ender update
        sys/leases/lookup update
        sys/leases/lookup/ update
        sys/leases/revoke update
        transit/decrypt/channels update
        transit/keys/checkpoints read
        transit/sign/checkpoints update
    """,
    # Root in effect over what leases may read. ACME is not switched on, so its keys open nothing.
    "guestkey-setup": """
        auth/token/lookup-self read
        auth/token/renew-self update
        database/roles/gk-* create delete update
        guestkey/data/connections/data/registrar read
        guestkey/data/connections/data/s3-issuer read
        pki/config/urls create update
        pki/roles/gk-* create delete update
        pki/roles/gk-*/acme/new-eab create delete update
        ssh/roles/gk-* create delete update
        sys/policies/acl/guestkey-lease-gk-* create delete update
    """,
    "guestkey-operator": """
        auth/token/lookup-self read
        auth/token/revoke-self update
        auth/userpass/users/* create delete update
        database/config list
        database/config/* create read update
        database/creds/gk-probe-* read
        database/rotate-root/* update
        guestkey/data/connections/data/* create update
        identity/entity create update
        identity/entity-alias create update
        identity/oidc/client/guestkey create read update
        identity/oidc/key/guestkey create update
        identity/oidc/provider/guestkey create update
        ssh/config/ca read
        sys/auth read
        sys/storage/raft/snapshot read
        transit/keys/*/rotate update
        transit/keys/ssh-lists read
    """,
    # Root in effect, by policies; kept in a safe, and nothing that runs logs in with it.
    "guestkey-custodian": """
        auth/approle/role/*/custom-secret-id update
        auth/approle/role/*/secret-id list
        auth/approle/role/*/secret-id-accessor/destroy update
        auth/token/lookup-self read
        pki/config/auto-tidy create update
        pki/config/crl create update
        ssh/config/ca create read update
        ssh/roles/guestkey-* create update
        sys/mounts/* create update
        sys/mounts/*/tune create update
        sys/policies/acl/guestkey-* create update
        sys/storage/raft/snapshot-force create update
        transit/keys/* create read update
        transit/keys/*/config update
        transit/keys/*/rotate update
    """,
}
# Escalations through what a path allows: parameters that would carry policies, or names that leave the path.
ROOT = "guestkey-custodian"
THROUGH: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "guestkey-operator": [
        ("identity/entity", {"name": "ada", "policies": [ROOT]}),
        ("identity/entity", {"name": "ada", "policies": ROOT}),
        ("identity/entity", {"name": "ada", "POLICIES": [ROOT]}),
        ("identity/entity", {"name": "ada", "metadata": {}, "id": "x"}),
        ("identity/entity", {"name": "ada", "disabled": True}),
        ("identity/entity/name/ada", {"policies": [ROOT]}),
        ("identity/group", {"name": "all", "policies": [ROOT]}),
        ("identity/entity-alias", {"name": "a", "canonical_id": "x", "mount_accessor": "x", "custom_metadata": {}}),
        ("auth/userpass/users/ada", {"password": "x" * 20, "token_policies": ROOT}),
        ("auth/userpass/users/ada", {"password": "x" * 20, "token_policies": [ROOT]}),
        ("auth/userpass/users/ada", {"password": "x" * 20, "token_policies": f"guestkey-sign-in,{ROOT}"}),
        ("auth/userpass/users/ada", {"password": "x" * 20, "policies": ROOT}),
        ("auth/userpass/users/ada/policies", {"token_policies": ROOT}),
        ("auth/userpass/users/ada", {"password": "x" * 20, "token_type": "batch"}),
        ("identity/oidc/provider/default", {"issuer": "http://127.0.0.1:1"}),
        ("guestkey/data/connections/data/registrar/more", {"data": {}}),
        ("guestkey/data/witness", {"data": {}}),
    ],
    "guestkey-issuer": [
        ("auth/token/create/guestkey-lease", LEASE | {"policies": [ROOT]}),
        ("auth/token/create/guestkey-lease", LEASE | {"policies": ["root"]}),
        ("auth/token/create/guestkey-lease", LEASE | {"policies": ["guestkey-lease-gk-x", ROOT]}),
        ("auth/token/create/guestkey-lease", LEASE | {"entity_alias": "ada"}),
        ("auth/token/create/guestkey-lease", LEASE | {"type": "service"}),
        ("auth/token/create/guestkey-lease", LEASE | {"period": "24h"}),
        ("auth/token/create/guestkey-lease", LEASE | {"no_parent": True}),
        ("auth/token/create", LEASE),
        ("auth/token/create-orphan", LEASE),
    ],
    "guestkey-setup": [
        ("sys/policies/acl/guestkey-lease-gk-x/../guestkey-setup", {"policy": EVERYTHING}),
        ("sys/policies/acl/guestkey-setup", {"policy": EVERYTHING}),
        ("sys/policies/acl/guestkey-lease-x", {"policy": EVERYTHING}),
        ("sys/policy/guestkey-lease-gk-x", {"policy": EVERYTHING}),
        ("database/roles/gk-x/../../config/data", {"plugin_name": "postgresql-database-plugin"}),
        ("database/static-roles/gk-x", {"db_name": "data", "username": "postgres"}),
    ],
    "guestkey-ender": [
        ("guestkey/data/connections/data/watch", {"data": {"url": "postgresql://127.0.0.1:1/x"}}),
        ("sys/leases/revoke-force/database", {}),
        ("sys/leases/revoke-prefix/auth", {}),
        ("pki/issue/gk-x", {"common_name": "x"}),
        ("ssh/sign/guestkey-setup", {"public_key": "x"}),
    ],
}


@dataclass
class Examined:
    """An OpenBao of its own, the token of the examiner, and every path the server describes."""

    bao: OpenBao
    examiner: str
    operations: dict[str, list[str]]
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, token: str, body: Any = None) -> requests.Response:
        """One request with somebody's token."""
        address, headers = f"{self.bao.address}/v1/{path}", {"X-Vault-Token": token}
        return self.session.request(method, address, json=body, headers=headers, timeout=20)

    def log_in(self, identity: str) -> str:
        """A token of one of the broker's identities."""
        secret_id = self.bao.secret_id_file(identity).read_text()
        answer = self.call("POST", "auth/approle/login", "", {"role_id": identity, "secret_id": secret_id})
        token: str = answer.json()["auth"]["client_token"]
        return token

    def capabilities(self, token: str) -> dict[str, str]:
        """What a token may do, by path; paths that are denied are left out."""
        found: dict[str, list[str]] = {}
        # OpenBao refuses a body of more texts than that.
        for paths in _batches(sorted(self.operations), 300):
            asked = {"token": token, "paths": paths}
            found |= self.call("POST", "sys/capabilities", self.examiner, asked).json()["data"]
        return {path: " ".join(can) for path, can in found.items() if can != ["deny"]}


@pytest.fixture(scope="module")
def examined() -> Iterator[Examined]:
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        bao = OpenBao(Path(folder), free_port(), free_port(), more=EXAMINER)
        bao.start()
        try:
            login = requests.post(f"{bao.address}/v1/auth/approle/login", json={"role_id": "examiner"}, timeout=20)
            token = login.json()["auth"]["client_token"]
            examined = Examined(bao, token, _operations(bao, token))
            yield examined
            examined.session.close()
        finally:
            bao.stop()


@pytest.mark.parametrize("identity", IDENTITIES)
def test_identity_has_the_capabilities_written_down_and_no_others(examined: Examined, identity: str) -> None:
    allowed = [line.strip().partition(" ") for line in ALLOWED[identity].strip().splitlines()]
    used = set()
    for path, capabilities in examined.capabilities(examined.log_in(identity)).items():
        fitting = [pattern for pattern, _, can in allowed if can == capabilities and _matches(path, pattern)]
        assert fitting, f"{identity} may {capabilities} {path}"
        used.update(fitting)
    assert used == {pattern for pattern, _, _ in allowed}, "a capability the broker needs is gone"


@pytest.mark.parametrize("identity", [name for name in IDENTITIES if name != ROOT])
def test_identity_is_refused_on_every_other_path(examined: Examined, identity: str) -> None:
    """The acts themselves, with the real token: what OpenBao says of capabilities is not taken for granted."""
    token = examined.log_in(identity)
    allowed = examined.capabilities(token)
    let_through = []
    for path, methods in examined.operations.items():
        if path in allowed or NOT_TRIED & set(path.split("/")[1:]) or path in FOR_WRAPPED_TOKENS:
            continue
        for method in methods:
            answer = examined.call(method, path, token, {} if method == "POST" else None)
            if not _refused(answer):
                let_through.append((method, path, answer.status_code, answer.text[:100]))
    assert let_through == []


@pytest.mark.parametrize("identity", sorted(THROUGH))
def test_identity_gains_nothing_through_parameters_or_names(examined: Examined, identity: str) -> None:
    token = examined.log_in(identity)
    let_through = []
    for path, body in THROUGH[identity]:
        answer = examined.call("POST", path, token, body)
        if not _refused(answer):
            let_through.append((path, body, answer.status_code, answer.text[:100]))
    assert let_through == []


def test_operator_accounts_can_only_sign_in(examined: Examined) -> None:
    """The whole chain: an account, an entity and an alias made by the operator, and what the account then may do."""
    token = examined.log_in("guestkey-operator")
    account = {"password": "x" * 20, "token_policies": "guestkey-sign-in"}
    assert examined.call("POST", "auth/userpass/users/eve", token, account).status_code == 204
    entity = examined.call("POST", "identity/entity", token, {"name": "eve", "metadata": {"email": "e@x"}}).json()
    accessor = examined.call("GET", "sys/auth", token).json()["data"]["userpass/"]["accessor"]
    alias = {"name": "eve", "canonical_id": entity["data"]["id"], "mount_accessor": accessor}
    assert examined.call("POST", "identity/entity-alias", token, alias).status_code == 200
    signed_in = examined.call("POST", "auth/userpass/login/eve", "", {"password": "x" * 20}).json()["auth"]
    assert (signed_in["token_policies"], signed_in.get("identity_policies", [])) == (
        ["default", "guestkey-sign-in"],
        [],
    )
    refused = examined.call("POST", "sys/policies/acl/guestkey-issuer", signed_in["client_token"], {"policy": ""})
    assert refused.status_code == 403


def _refused(answer: requests.Response) -> bool:
    """Refused by the policy, by a page that speaks OAuth, or by the role a token is made through."""
    said = ("permission denied", "must be subset of the role's allowed policies")
    return answer.status_code == 403 or (answer.status_code in (400, 401) and any(text in answer.text for text in said))


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _operations(bao: OpenBao, token: str) -> dict[str, list[str]]:
    """Every path with names filled in, and the methods it has; those that need no token are left out."""
    description = requests.get(
        f"{bao.address}/v1/sys/internal/specs/openapi", headers={"X-Vault-Token": token}, timeout=20
    ).json()
    found: dict[str, list[str]] = {}
    for template, described in description["paths"].items():
        if described.get("x-vault-unauthenticated"):
            continue
        methods = [METHODS[method] for method in described if method in METHODS]
        for path in _filled(template.lstrip("/")):
            found[path] = methods
    return found


def _filled(template: str) -> set[str]:
    names = [*NAMES, *(KEYS if "transit/" in template else ())]
    if template.startswith("guestkey/"):
        names += [f"connections/data/{login}" for login in ("registrar", "watch", "s3-issuer", "s3-ender")]
        names += ["witness", "endings/x"]
    return {re.sub(r"\{[^}]*\}", name, template) for name in names}


def _batches(items: list[str], size: int) -> list[list[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
