"""What is let pass as a signing request; each thing that is not has a reason of its own."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.base.errors import Invalid
from broker.kinds.discovery import kinds
from broker.kinds.x509.certificates import LONGEST
from tests.support.gateway import Key, guest

check = kinds["x509"].check_proof
GOOD = guest().request


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 3072),
    ],
    ids=["p256", "p384", "p521", "ed25519", "rsa3072"],
)
def test_a_strong_key_passes_whatever_its_subject(key: Key) -> None:
    request = guest(key, name="root@elsewhere").request
    assert check(request) == request == check(f"\r\n{request.replace(chr(10), chr(13) + chr(10))}\n")


def test_new_certificate_request_header_is_accepted() -> None:
    assert check(GOOD.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")) == GOOD


def test_harmless_extensions_are_accepted() -> None:
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    assert check(guest(None, usage, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])).request)


def _reason(text: str) -> str:
    with pytest.raises(Invalid) as refused:
        check(text)
    assert refused.value.field == "/public_key"
    assert "openssl req" in refused.value.advice
    return refused.value.detail


def test_weak_keys_are_refused() -> None:
    assert "3072" in _reason(guest(rsa.generate_private_key(65537, 2048)).request)
    assert "too small" in _reason(guest(rsa.generate_private_key(3, 3072)).request)
    assert "secp256k1" in _reason(guest(ec.generate_private_key(ec.SECP256K1())).request)
    assert "Ed25519" in _reason(guest(dsa.generate_private_key(2048)).request)  # type: ignore[arg-type]


def test_certificate_instead_of_a_request_is_refused() -> None:
    assert "a certificate, not" in _reason("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_private_key_is_refused_as_compromised() -> None:
    for text in (guest().key_pem.decode(), GOOD + guest().key_pem.decode()):
        assert "private key" in _reason(text)
        with pytest.raises(Invalid) as refused:
            check(text)
        assert "Delete it" in refused.value.advice
        assert text.splitlines()[1] not in refused.value.detail + refused.value.advice


def test_bare_public_key_is_refused() -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    for encoding, form in (
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.OpenSSH, PublicFormat.OpenSSH),
    ):
        assert "proves" in _reason(public.public_bytes(encoding, form).decode())


def test_request_to_be_a_ca_is_refused() -> None:
    assert "authority" in _reason(guest(None, x509.BasicConstraints(True, None)).request)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    assert "sign certificates" in _reason(guest(None, usage).request)


def test_request_with_alternative_names_is_refused() -> None:
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://guestkey/lease/of-another")])
    assert "names of its own" in _reason(guest(None, wish).request)


def test_a_request_signed_with_another_key_is_refused() -> None:
    lines = GOOD.splitlines()
    # The signature is at the end; a bit of it turned is no signature of this key any more.
    last = lines[-2]
    forged = "A" if last[-8] != "A" else "B"
    lines[-2] = last[:-8] + forged + last[-7:]
    assert "signature" in _reason("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "\x00" * 100,
        GOOD + GOOD,
        "Certificate Request:\n" + GOOD,
        GOOD[:200],
        GOOD.replace("-----END CERTIFICATE REQUEST-----\n", ""),
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\n*\n-----END CERTIFICATE REQUEST-----\n",
    ],
)
def test_garbage_is_refused(text: str) -> None:
    assert _reason(text)


def test_request_over_16_kb_is_refused_unparsed() -> None:
    assert "16 KB" in _reason(GOOD + "\n" * LONGEST)
