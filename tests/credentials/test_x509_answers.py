"""A key store that answers malformed_answer: whatever is not what was asked for is handed to nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.base.errors import BackendDown
from broker.keystore.responses import SignedCertificate
from broker.kinds.values import Issued
from broker.kinds.x509.certificates import common_name, uri
from broker.runtime.parts import vault_of
from tests.support.certificates import GUEST, KIND, Placed, self_signed
from tests.support.world import World


class Liar:
    """Signs as the broker's authority would, and not what it was asked for."""

    def __init__(self, world: World, placed: Placed) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.authority = self_signed(self.key)
        self.world, self.lease = world, placed.lease

    def signed(
        self,
        *,
        key: Any = GUEST.key,
        cn: str = "",
        names: list[str] | None = None,
        beyond: int = 60,
        uses: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        ca: bool = False,
        by: Any = None,
        serial: str = "",
    ) -> SignedCertificate:
        """An answer that is right but for what is named."""
        handle = self.lease.handle
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn or common_name(handle))])
        issuer = x509.load_pem_x509_certificate(self.authority.encode()).subject
        end = self.lease.expires_at + timedelta(seconds=beyond)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(0x1234).not_valid_before(end - timedelta(hours=9)).not_valid_after(end)
        uris = [x509.UniformResourceIdentifier(name) for name in ([uri(handle)] if names is None else names)]
        if uris:
            builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        pem = builder.sign(by or self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        return SignedCertificate(pem, self.authority, serial or "12:34")

    def tell(self, placed: Placed, answer: SignedCertificate) -> Issued:
        """Issue with that answer."""
        # One that remembers no authority.
        vault = vault_of(self.world.settings, "issuer")
        with (
            patch.object(vault, "ca_certificate", return_value=self.authority),
            patch.object(vault, "sign_certificate", return_value=answer),
        ):
            return KIND.issue(vault, placed.token, placed.lease)


def test_fake_openbao_with_correct_answers_works(world: World, placed: Placed) -> None:
    liar = Liar(world, placed)
    assert liar.tell(placed, liar.signed()).backend_lease_id == "12:34"


@pytest.mark.parametrize(
    "lie",
    [
        {"key": ec.generate_private_key(ec.SECP256R1())},
        {"cn": "somebody.lease.guestkey.internal"},
        {"names": []},
        {"names": ["spiffe://guestkey/lease/abc123-another"]},
        {"names": ["HANDLE", "spiffe://guestkey/lease/abc123-another"]},
        {"beyond": 3600},
        {"beyond": -60},
        {"uses": (ExtendedKeyUsageOID.SERVER_AUTH,)},
        {"uses": (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)},
        {"ca": True},
        {"by": ec.generate_private_key(ec.SECP256R1())},
        {"serial": "43:21"},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_wrong_certificate_from_openbao_is_not_returned(world: World, placed: Placed, lie: dict[str, Any]) -> None:
    liar = Liar(world, placed)
    if "names" in lie:
        lie = {"names": [name.replace("HANDLE", uri(placed.lease.handle)) for name in lie["names"]]}
    with pytest.raises(BackendDown) as down:
        liar.tell(placed, liar.signed(**lie))
    assert down.value.advice


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_answer_without_a_certificate_is_an_error(world: World, placed: Placed, text: str) -> None:
    liar = Liar(world, placed)
    with pytest.raises(BackendDown):
        liar.tell(placed, replace(liar.signed(), certificate=text))
