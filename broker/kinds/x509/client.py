"""How guests use a client certificate: key, certificate and chain in PEM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from broker.kinds.client import Credential, Files, Format, KeyPair, KindClient

_FILES = {"private_key": "key.pem", "certificate": "cert.pem", "chain": "chain.pem"}


def _files(credential: Credential, _folder: Path) -> Files:
    # Whoever brought a request of their own has the key already.
    there = {name: file for name, file in _FILES.items() if name != "private_key" or name in credential.values}
    return {file: credential.value(name).strip() + "\n" for name, file in there.items()}


class X509Client(KindClient):
    """See `Client`."""

    makes_key = True
    formats = (
        Format(
            "pem",
            "key, certificate and chain; --out FILE, or --out FOLDER/",
            _files,
            may_folder=True,
            marked=True,
            use="curl --cert {out}/cert.pem --key {out}/key.pem https://{address}/",
        ),
    )
    file_variables: ClassVar[Mapping[str, str]] = {
        f"GUESTKEY_{name.upper()}_FILE": file for name, file in _FILES.items()
    }

    def key(self) -> KeyPair:
        """See `Client.key`: the public half is a request for a certificate (PKCS #10)."""
        # Slow to import, and for nothing but this.
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        # Nothing of the request but its key is used: the broker names the certificate.
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return KeyPair(request.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


CLIENT = X509Client()
