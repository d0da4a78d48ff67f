"""An installation from before certificates: deploy/openbao/upgrade makes the authority once, and keeps it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from broker.embedded import children, openbao
from tests.support.key_store_setup import requests_for, setup_without

UPGRADE = Path(__file__).parents[2] / "deploy/openbao/upgrade"
_BEFORE = """
path "auth/token/lookup-self"          { capabilities = ["read"] }
path "sys/policies/acl/guestkey-*"     { capabilities = ["create", "update"] }
path "sys/mounts/*"                    { capabilities = ["create", "update"] }
path "transit/keys/+"                  { capabilities = ["create", "update"] }
"""


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[openbao.OpenBao]:
    """OpenBao as it was set up without an authority, its custodian as little able as then."""
    monkeypatch.setattr(openbao, "INITIALIZE", setup_without("pki", tmp_path))
    custodian = ("custodian-before", "sys/policies/acl/guestkey-custodian", {"policy": _BEFORE})
    with TemporaryDirectory(prefix="guestkey-older-", ignore_cleanup_errors=True) as folder:
        made = openbao.OpenBao(Path(folder), children.free_port(), children.free_port(), more=[custodian])
        made.start()
        try:
            yield made
        finally:
            made.stop()


def _upgrade(bao: openbao.OpenBao) -> None:
    variables = {
        "PATH": f"{openbao.binary().parent}:/usr/bin:/bin",
        "HOME": str(bao.state),
        "BAO_ADDR": bao.address,
        "CUSTODIAN_SECRET_ID_FILE": str(bao.secret_id_file("guestkey-custodian")),
    }
    done = subprocess.run([UPGRADE], env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_older_installation_gets_a_ca_once(older: openbao.OpenBao) -> None:
    where = f"{older.address}/v1/pki/ca/pem"
    assert requests.get(where, timeout=5).status_code == 403
    _upgrade(older)
    first = requests.get(where, timeout=5)
    assert first.status_code == 200 and "BEGIN CERTIFICATE" in first.text
    _upgrade(older)
    assert requests.get(where, timeout=5).text == first.text


def test_upgrade_script_matches_a_new_installation() -> None:
    script = " ".join(UPGRADE.read_text().replace("\\\n", " ").split())
    configured = {path: data for path, data in requests_for("pki").items() if path != "sys/mounts/pki"}
    assert len(configured) == 3
    for path, data in configured.items():
        line = script[script.index(f"bao write {path} ") :].partition(">")[0]
        said = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in data.items()}
        for key, value in said.items():
            assert f"{key}={value}" in line or f"{key}='{value}'" in line, (path, key)
