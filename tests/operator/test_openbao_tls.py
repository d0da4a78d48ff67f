"""Why OpenBao's certificate is not trusted: told by readiness, and by the commands that log in to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from pydantic import HttpUrl

from broker.base.errors import BackendDown
from broker.base.settings import Settings
from broker.embedded.stack import Stack
from broker.keystore.operator import operator
from broker.runtime.parts import Parts
from broker.web.health import check_all
from tests.operator.conftest import command
from tests.support.tls_servers import WRONG, leaf, speaking_tls

# The breaker opens after five faults.
ASKED = 7


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """A certificate authority of this test's own; what is trusted stands in `ca.pem`."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@contextmanager
def reached_at(settings: Settings, url: str, ca_file: Path) -> Iterator[Parts]:
    """The parts of a replica that reaches OpenBao there."""
    changes = {"bao_addr": HttpUrl(url), "bao_ca_file": ca_file}
    parts = Parts.build(settings.model_copy(update=changes), identity="issuer")
    try:
        yield parts
    finally:
        parts.close()


@pytest.mark.parametrize("wrong", WRONG)
def test_readiness_reports_an_invalid_openbao_certificate(
    parts: Parts, authority: trustme.CA, tmp_path: Path, wrong: str
) -> None:
    behind = parts.settings.bao_addr.port
    with (
        speaking_tls(leaf(authority, wrong), behind) as url,
        reached_at(parts.settings, url, tmp_path / "ca.pem") as there,
    ):
        told = [check_all(there)["openbao"] for _ in range(ASKED)]
    assert all(WRONG[wrong] in each for each in told), "also while the breaker lets nobody try"
    assert "localhost" not in told[0], "everybody may read it"
    assert (wrong != "name") or "the name in GUESTKEY_BAO_ADDR" in told[0]


def test_readiness_reports_openbao_without_tls(parts: Parts, authority: trustme.CA, tmp_path: Path) -> None:
    assert authority
    url = f"https://127.0.0.1:{parts.settings.bao_addr.port}"
    with reached_at(parts.settings, url, tmp_path / "ca.pem") as there:
        assert "no TLS connection could be made (OpenSSL: " in check_all(there)["openbao"]


def test_valid_openbao_certificate_is_accepted(parts: Parts, authority: trustme.CA, tmp_path: Path) -> None:
    with (
        speaking_tls(leaf(authority), parts.settings.bao_addr.port) as url,
        reached_at(parts.settings, url, tmp_path / "ca.pem") as there,
    ):
        assert check_all(there)["openbao"] == "ok"
        there.vault._session.verify = str(_another(tmp_path))
        there.vault._session.close()
        assert "it is not signed by a trusted authority" in check_all(there)["openbao"]
        there.vault._session.verify = str(tmp_path / "ca.pem")
        assert check_all(there)["openbao"] == "ok", "and what was wrong is forgotten"


def _another(folder: Path) -> Path:
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    return folder / "other.pem"


def test_operator_commands_report_openbao_tls_errors(authority: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("unused")
    with (
        speaking_tls(leaf(authority, "expired")) as url,
        pytest.raises(BackendDown) as refused,
        operator(url, tmp_path / "ca.pem", tmp_path / "secret"),
    ):
        pass
    assert WRONG["expired"] in refused.value.detail


@pytest.mark.parametrize("part", ["BAO", "SMTP", "NOTICE", "SIGN_IN"])
def test_missing_ca_file_is_reported_at_start(stack: Stack, part: str) -> None:
    name = f"GUESTKEY_{part}_CA_FILE"
    refused = command(["close", "--reason", "x"], stack.environment() | {name: "/nowhere/ca.pem"})
    assert refused.returncode == 2 and name in refused.stderr
