"""Which public keys a guest may bring, and reading certificates; no host, no OpenBao."""

from __future__ import annotations

import base64
import itertools
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.base.errors import Invalid
from broker.kinds.ssh.kind import SshKind
from broker.kinds.ssh.public_keys import Certificate, check_public_key
from tests.support.sshd import key_pair

PRIVATE, ED25519 = key_pair()


def packed(*fields: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(field)) + field for field in fields)).decode()


def rsa_line(bits: int, exponent: int = 65537) -> str:
    key = rsa.generate_private_key(exponent, bits).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def compressed_line() -> str:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return f"ecdsa-sha2-nistp256 {packed(b'ecdsa-sha2-nistp256', b'nistp256', encoded)}"


def ec_line(curve: ec.EllipticCurve) -> str:
    key = ec.generate_private_key(curve).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def sk_line(curve: ec.EllipticCurve | None = None) -> str:
    if curve is not None:
        name = "sk-ecdsa-sha2-nistp256@openssh.com"
        point = ec.generate_private_key(curve).public_key()
        encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return f"{name} {packed(name.encode(), b'nistp256', encoded, b'ssh:')}"
    name = "sk-ssh-ed25519@openssh.com"
    return f"{name} {packed(name.encode(), base64.b64decode(ED25519.split()[1])[-32:], b'ssh:')}"


def made(folder: Path, *options: str, key: str = ED25519) -> str:
    """What `ssh-keygen -s` makes of our key, or of another."""
    for name, content in (("ca", PRIVATE), ("key.pub", key.encode() + b"\n")):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    command = ["ssh-keygen", "-q", "-s", "ca", "-I", "token-abc123-l1", *options, "key.pub"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "key-cert.pub").read_text()


def refused(text: str) -> Invalid:
    with pytest.raises(Invalid) as error:
        check_public_key(text)
    assert error.value.field == "/public_key" and error.value.advice
    assert not text or text[:40] not in error.value.detail
    return error.value


@pytest.mark.parametrize(
    "line",
    [ED25519, ec_line(ec.SECP256R1()), ec_line(ec.SECP384R1()), ec_line(ec.SECP521R1()), rsa_line(3072), sk_line()],
    ids=lambda line: line.split()[0],
)
def test_strong_key_is_accepted_without_its_comment(line: str) -> None:
    assert check_public_key(f"  {line} ada\x1b[31m@laptop\n") == line
    assert check_public_key(line) == line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a public key of OpenSSH"),
        ("ssh-ed25519", "cut off"),
        ("ssh-ed25519 AAAA", "cut off"),
        (ED25519[:-8], "cut off"),
        (f"ssh-rsa {ED25519.split()[1]}", "do not agree"),
        ("ssh-ed448 AAAA", "type of key is not accepted"),
        ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n", "not a public key of OpenSSH"),
        ("x" * 20_000, "not a public key of OpenSSH"),
        (PRIVATE.decode(), "That was a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "That was a private key"),
        (f"{ED25519}\n{ED25519}\n", "several lines"),
        (f'command="/bin/sh" {ED25519}', "something before the key"),
        (f"cert-authority {ED25519}", "key of a certificate authority"),
        (f'principals="a",cert-authority {ED25519}', "key of a certificate authority"),
        (rsa_line(2048), "this has 2048"),
        (rsa_line(3072, 3), "exponent"),
        (compressed_line(), "cut off"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP", "DSA"),
        (f"ssh-ed25519-cert-v01@openssh.com {ED25519.split()[1]}", "This is a certificate"),
    ],
    # Keys differ from one process to the next, and names of tests must not.
    ids=itertools.count(),
)
def test_invalid_key_is_refused_with_its_reason(text: str, reason: str) -> None:
    assert reason in refused(text).detail


def test_a_dsa_key_is_refused_whatever_its_size() -> None:
    numbers = dsa.generate_private_key(2048).public_key().public_numbers()
    parts = numbers.parameter_numbers
    fields = [b"ssh-dss", *(_mpint(n) for n in (parts.p, parts.q, parts.g, numbers.y))]
    assert refused(f"ssh-dss {packed(*fields)}").detail == "DSA keys are too weak."


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def test_a_certificate_is_refused_under_any_name(tmp_path: Path) -> None:
    certificate = made(tmp_path, "-n", "root")
    assert refused(certificate).detail.startswith("This is a certificate")
    # The nested certificate of CVE-2025-49825: the blob of a certificate under the name of a plain key.
    assert refused(f"ssh-ed25519 {certificate.split()[1]}").detail.startswith("This is a certificate")


def test_the_key_of_our_own_authority_is_refused() -> None:
    kind = SshKind()
    kind._authority = ED25519
    with pytest.raises(Invalid) as error:
        kind.check_proof(ED25519)
    assert "key of the authority" in error.value.detail


def test_certificate_is_parsed_as_written_by_ssh_keygen(tmp_path: Path) -> None:
    options = ("clear", "force-command=internal-sftp -R", "permit-pty", "source-address=127.0.0.0/8")
    given = [part for option in options for part in ("-O", option)]
    text = made(tmp_path, "-n", "gk-1r,gk-2r", *given, "-V", "19700101000100Z:19700101000200Z")
    found = Certificate.read(text)
    assert found.public_key == ED25519 and found.authority == ED25519
    assert (found.key_id, found.principals) == ("token-abc123-l1", ("gk-1r", "gk-2r"))
    assert (found.valid_from, found.valid_until) == (60, 120)
    assert found.critical_options == {"force-command": "internal-sftp -R", "source-address": "127.0.0.0/8"}
    assert found.extensions == ("permit-pty",)


@pytest.mark.parametrize(
    "line",
    [ec_line(ec.SECP256R1()), ec_line(ec.SECP521R1()), rsa_line(3072), sk_line(), sk_line(ec.SECP256R1())],
    ids=lambda line: line.split()[0],
)
def test_a_certificate_says_which_key_it_is_for(tmp_path: Path, line: str) -> None:
    found = Certificate.read(made(tmp_path, "-n", "gk-1r", key=line))
    assert (found.public_key, found.authority, found.principals) == (line, ED25519, ("gk-1r",))


@pytest.mark.parametrize("cut", [0, 10, 40, 200])
def test_incomplete_or_non_user_certificate_is_refused(tmp_path: Path, cut: int) -> None:
    host = made(tmp_path, "-h", "-n", "sftp.example")
    user = made(tmp_path, "-n", "gk-1r")
    name, encoded = user.split()[:2]
    for text in (ED25519, host, "", name, f"{name} {encoded[:cut]}", f"ssh-ed25519 {encoded}"):
        with pytest.raises(ValueError):
            Certificate.read(text)


@pytest.mark.parametrize(
    "directory",
    ["", "/", "/srv", "a/", "a//b", "..", "a/../b", ".ssh", "a/.b", "a b", "a\tb", "a\n", "a\x00", "a'b", 'a"b', "a%u",
     "a*", "a?", "a\\b", "$HOME", "~", "ä", "a" * 101, "/".join("abcdefghijk"), None, 7, ["a"]],
)  # fmt: skip
def test_directory_that_could_escape_is_refused(directory: object) -> None:
    with pytest.raises(Invalid) as error:
        SshKind().check_binding({"connection": "sftp", "directory": directory})
    assert error.value.field == "/binding/directory"


@pytest.mark.parametrize("connection", ["", "SFTP", "a_b", "-a", "a-", "a/b", None, 1])
def test_connection_name_must_be_plain(connection: object) -> None:
    with pytest.raises(Invalid) as error:
        SshKind().check_binding({"connection": connection, "directory": "acme"})
    assert error.value.field == "/binding/connection"
