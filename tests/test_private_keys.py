"""The one test for private keys: every form one comes in is told, and nothing public is taken for one."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from broker.base.errors import Invalid
from broker.base.private_keys import is_private
from broker.kinds.discovery import kinds
from guestkey.cli import keypairs
from guestkey.cli.faults import Code, Fault

KEYS: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
    # Of the shortest length there is: its form is that of every other, and a longer one takes seconds to find.
    "dsa": dsa.generate_private_key(1024),  # noqa: S505  nothing is signed with it
}
PUTTY = "PuTTY-User-Key-File-{version}: ssh-ed25519\nEncryption: none\nPublic-Lines: 1\nAAAA\nPrivate-Lines: 1\nAA\n"
TEXTS = [
    PUTTY.format(version=2),
    PUTTY.format(version=3),
    "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/56wAAA\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ",
    "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJ",
    "# created: 2026-01-01T00:00:00Z\nAGE-SECRET-KEY-1QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L\n",
    "AGE-PLUGIN-YUBIKEY-1QQPZRY9X8GF",
    "untrusted comment: minisign encrypted secret key\nRWRTY0Iy\n",
    "untrusted comment: signify secret key\nRWRCSwAA\n",
    "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
    "Private-key-format: v1.3\nAlgorithm: 13\n",
    "<RSAKeyValue><Modulus>x</Modulus><D>y</D></RSAKeyValue>",
]


def pem_and_der() -> dict[str, bytes]:
    """Keys of every algorithm in each layout that it has, open and locked."""
    made = {}
    locked = BestAvailableEncryption(b"a password")
    layouts = {
        "PKCS8": PrivateFormat.PKCS8,
        "traditional": PrivateFormat.TraditionalOpenSSL,
        "OpenSSH": PrivateFormat.OpenSSH,
    }
    for name, key in KEYS.items():
        for called, layout in layouts.items():
            if (name, called) in (("ed25519", "traditional"), ("dsa", "OpenSSH")):
                continue
            made[f"{name} {called} PEM"] = key.private_bytes(Encoding.PEM, layout, NoEncryption())
            if called != "OpenSSH":
                made[f"{name} {called} PEM locked"] = key.private_bytes(Encoding.PEM, layout, locked)
                made[f"{name} {called} DER"] = key.private_bytes(Encoding.DER, layout, NoEncryption())
        made[f"{name} PKCS8 DER locked"] = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, locked)
    for name in ("rsa", "ec"):
        made[f"{name} PKCS12"] = pkcs12.serialize_key_and_certificates(b"x", KEYS[name], None, None, locked)
        made[f"{name} PKCS12 of open length"] = open_ended(made[f"{name} PKCS12"])
    return made


def open_ended(der: bytes) -> bytes:
    """The same in BER, where a sequence need not say its length: it ends with two zero bytes."""
    begins = 2 + (der[1] & 0x7F)
    return b"\x30\x80" + der[begins:] + b"\x00\x00"


def forms() -> dict[str, bytes]:
    """Private keys, by what they are called."""
    made = {f"text {at}": text.encode() for at, text in enumerate(TEXTS)} | pem_and_der()
    jwks = (ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519"), RSAKey.generate_key(2048))
    for key in (*jwks, OctKey.generate_key(256)):
        made[f"JWK {key.key_type}"] = json.dumps(key.as_dict(private=True)).encode()
    for name, form in list(made.items()):
        if form[:1] == b"0":
            made[f"{name} base64"] = base64.encodebytes(form)
        elif name.startswith("text"):
            made[f"{name} UTF-16"] = form.decode().encode("utf-16")
            made[f"{name} CRLF"] = form.replace(b"\n", b"\r\n")
    return made


FORMS = forms()


@pytest.mark.parametrize("name", FORMS)
def test_every_private_key_format_is_detected_and_not_sent(name: str, tmp_path: Path) -> None:
    assert is_private(FORMS[name])
    (tmp_path / "key.pub").write_bytes(FORMS[name])
    with pytest.raises(Fault) as refused:
        keypairs.read(tmp_path / "key.pub")
    assert refused.value.code == Code.USAGE and "contains a private key" in str(refused.value)


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.isascii() and b"\0" not in form])
def test_server_detects_every_textual_private_key_format(name: str) -> None:
    asked = [kind for kind in kinds.values() if kind.proof is not None]
    assert {kind.name for kind in asked} == {"ssh", "x509"}
    for kind in asked:
        with pytest.raises(Invalid) as refused:
            kind.check_proof(FORMS[name].decode())
        assert "was a private key" in refused.value.detail or "was the private key" in refused.value.detail


def test_public_keys_are_not_detected_as_private(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    public = [(tmp_path / "key.pub").read_bytes(), b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", b"", b"\x00" * 40]
    for name, key in KEYS.items():
        public += [
            key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            for encoding in (Encoding.PEM, Encoding.DER)
        ]
        if name == "rsa":
            public += [key.public_key().public_bytes(e, PublicFormat.PKCS1) for e in (Encoding.PEM, Encoding.DER)]
        if name != "dsa":
            request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
            signed = request.sign(key, None if name == "ed25519" else hashes.SHA256())
            public += [signed.public_bytes(Encoding.PEM), signed.public_bytes(Encoding.DER)]
            public.append(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" ada's key")
    public += [json.dumps(ECKey.generate_key("P-256").as_dict(private=False)).encode()]
    public += [base64.encodebytes(item) for item in public if item[:1] == b"0"]
    assert [item for item in public if is_private(item)] == []


_BEGINNINGS = ("\n", " ", "M", "BEGIN", "AGE-PLUGIN-", '"kty"', '"d":', "<RSAKeyValue>", "untrusted comment:", "0\x80")


@pytest.mark.parametrize("beginning", _BEGINNINGS)
def test_no_text_takes_long_to_look_at(beginning: str) -> None:
    """Anybody may send one: it is looked at before it is known who asks."""
    began = time.thread_time()
    assert not is_private(beginning * (128 * 1024 // len(beginning)))
    assert time.thread_time() - began < 1
