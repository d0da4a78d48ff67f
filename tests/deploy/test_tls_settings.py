"""What every shipped configuration lets TLS use: 1.2 with authenticated encryption, or 1.3 alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
# Mozilla's intermediate configuration (https://wiki.mozilla.org/Security/Server_Side_TLS), without DHE.
INTERMEDIATE = {
    f"ECDHE-{signature}-{cipher}"
    for signature in ("ECDSA", "RSA")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
}
# Where a server speaks TLS, and the words by which it is held to these. Those without ciphers take 1.3 alone.
WITH_CIPHERS = {
    "nginx/mtls.conf": (r"ssl_protocols (.+);", {"TLSv1.2", "TLSv1.3"}, r"ssl_ciphers (\S+);"),
    "front/Caddyfile": (r"protocols (.+)", {"tls1.2", "tls1.3"}, r"ciphers (.+)"),
    "openvpn/guestkey.conf": (r"tls-version-min (.+)", {"1.2"}, r"tls-cipher (\S+)"),
}
NEWEST_ALONE = {
    "openbao/openbao.hcl": 'tls_min_version = "tls13"',
    "postgresql/postgresql.conf": "ssl_min_protocol_version = 'TLSv1.3'",
}
SPEAKS_TLS = re.compile(
    r"^\s*(?:listen .* ssl\b.*|tls /\S+.*|tls_cert_file\s.*|ssl_cert_file\s.*|tls-verify .*)$", re.M
)


def _plain(suite: str) -> str:
    """A suite by OpenSSL's name: Caddy and OpenVPN write the IANA's."""
    name = suite.replace("_", "-").removeprefix("TLS-").replace("-WITH-", "-").replace("AES-", "AES")
    return name.removesuffix("-SHA256") if "CHACHA20" in name else name


@pytest.mark.parametrize("file", WITH_CIPHERS)
def test_only_authenticated_encryption_with_tls_1_2(file: str) -> None:
    text = (DEPLOY / file).read_text()
    protocols, allowed, ciphers = WITH_CIPHERS[file]
    (found,) = re.findall(rf"^\s*{protocols}$", text, re.M)
    assert set(found.split()) == allowed
    (suites,) = re.findall(rf"^\s*{ciphers}$", text, re.M)
    named = {_plain(suite) for suite in re.split(r"[: ]", suites)}
    assert named and named <= INTERMEDIATE


@pytest.mark.parametrize("file", NEWEST_ALONE)
def test_settings_without_ciphers_require_tls_1_3(file: str) -> None:
    assert NEWEST_ALONE[file] in [line.strip() for line in (DEPLOY / file).read_text().splitlines()]


def test_every_server_has_tls_settings() -> None:
    speaking = {
        str(file.relative_to(DEPLOY))
        for file in DEPLOY.rglob("*")
        if file.is_file() and SPEAKS_TLS.search(file.read_text(errors="replace"))
    }
    assert speaking == WITH_CIPHERS.keys() | NEWEST_ALONE.keys()


def test_openvpn_config_lines_are_short_enough() -> None:
    """It refuses a longer one, without a word where it writes its log to a file."""
    assert max(map(len, (DEPLOY / "openvpn/guestkey.conf").read_text().splitlines())) <= 255
