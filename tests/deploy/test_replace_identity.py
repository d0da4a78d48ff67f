"""The way back after a web replica was compromised: its identity is replaced, and what it made is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests

from broker.base.settings import BaoIdentity
from broker.embedded import children, openbao
from broker.keystore.vault import Vault

SCRIPT = Path(__file__).parents[2] / "deploy/openbao/replace-identity"
SIGNED = {"input": "eA=="}


@pytest.fixture
def bao() -> Iterator[openbao.OpenBao]:
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        made = openbao.OpenBao(Path(folder), children.free_port(), children.free_port())
        made.start()
        try:
            yield made
        finally:
            made.stop()


def _call(bao: openbao.OpenBao, path: str, token: str, body: Any = None) -> requests.Response:
    return requests.post(f"{bao.address}/v1/{path}", json=body, headers={"X-Vault-Token": token}, timeout=20)


def _log_in(bao: openbao.OpenBao, secret_id: str) -> requests.Response:
    return _call(bao, "auth/approle/login", "", {"role_id": "guestkey-issuer", "secret_id": secret_id})


def _replace(bao: openbao.OpenBao, name: str, secret_id: Path) -> subprocess.CompletedProcess[str]:
    variables = {
        "PATH": f"{openbao.binary().parent}:/usr/bin:/bin",
        "HOME": str(bao.state),
        "BAO_ADDR": bao.address,
        "CUSTODIAN_SECRET_ID_FILE": str(bao.secret_id_file("guestkey-custodian")),
        "NEW_SECRET_ID_FILE": str(secret_id),
    }
    return subprocess.run([SCRIPT, name], env=variables, capture_output=True, text=True, timeout=60, check=False)


def test_replacing_the_issuer_revokes_stolen_tokens_and_the_broker_works(bao: openbao.OpenBao) -> None:
    secret_id = bao.secret_id_file("guestkey-issuer")
    stolen_id = secret_id.read_text()
    stolen = _log_in(bao, stolen_id).json()["auth"]["client_token"]
    signature = _call(bao, "transit/sign/tokens", stolen, SIGNED).json()["data"]["signature"]
    vault = Vault(bao.address, BaoIdentity(role_id="guestkey-issuer", secret_id_file=secret_id), timeout=20)
    wrapped = vault.encrypt("totp", b"seed", context="p")
    fresh = bao.state / "fresh"
    fresh.write_text("f" * 40)

    for _ in range(2):  # twice is fine
        done = _replace(bao, "guestkey-issuer", fresh)
        assert done.returncode == 0, done.stderr
    secret_id.write_text(fresh.read_text())

    assert _log_in(bao, stolen_id).status_code == 400
    for path in ("transit/sign/tokens", "auth/token/renew-self"):
        assert _call(bao, path, stolen, SIGNED).status_code == 403, path
    assert vault.decrypt("totp", wrapped, context="p") == b"seed", "logged in again, and nothing wrapped is lost"
    newest, public = vault.public_keys("tokens")
    assert int(signature.split(":")[1][1:]) not in public and newest in public


def test_unknown_identity_is_refused(bao: openbao.OpenBao) -> None:
    assert _replace(bao, "guestkey-custodian", bao.secret_id_file("guestkey-issuer")).returncode == 2
