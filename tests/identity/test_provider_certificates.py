"""Why a provider's certificate is not trusted: told in OpenSSL's own terms to whoever binds a source."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.identity.conftest import Door
from tests.support.tls_servers import WRONG, leaf, speaking_tls
from tests.support.world import World


@pytest.fixture
def authority(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this installation trusts for providers."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setattr(door.house.settings, "sign_in_ca_file", tmp_path / "ca.pem")
    return made


def told(door: Door, world: World, issuer: str) -> str:
    """What an admin reads who proposes a source there."""
    body = {"name": "Acme", "issuer": issuer, "client_id": "guestkey", "vendor": world.vendor().id}
    answer = door.admin().api("POST", "/sources", body)
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/issuer"
    return str(error["detail"])


@pytest.mark.parametrize("wrong", WRONG)
def test_invalid_provider_certificate_is_explained(door: Door, world: World, authority: trustme.CA, wrong: str) -> None:
    with speaking_tls(leaf(authority, wrong)) as issuer:
        assert f"its certificate is not trusted: {WRONG[wrong]}" in told(door, world, issuer).replace(
            "it is not for localhost ", ""
        )


def test_valid_provider_certificate_is_accepted(door: Door, world: World, authority: trustme.CA) -> None:
    port = int(door.provider.issuer.rpartition(":")[2])
    with speaking_tls(leaf(authority), port) as issuer:
        door.provider.metadata["issuer"] = "https://elsewhere.example"
        assert "elsewhere.example" in told(door, world, issuer), "its answer was read"


def test_provider_without_tls_is_reported(door: Door, world: World) -> None:
    issuer = door.provider.issuer.replace("http://", "https://")
    assert "no TLS connection could be made (OpenSSL: " in told(door, world, issuer)
