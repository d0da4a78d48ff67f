"""TLS servers with certificates that are right, and wrong in each of the ways OpenSSL tells apart."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

# What is wrong with the certificate, and what must be told of it.
WRONG = {
    "expired": "it has expired (OpenSSL: certificate has expired, 10)",
    "early": "it is not valid yet (OpenSSL: certificate is not yet valid, 9)",
    "name": "(OpenSSL: hostname mismatch, 62)",
    "authority": "it is not signed by a trusted authority (OpenSSL: unable to get local issuer certificate, 20)",
    "self-signed": "it is self-signed, and this machine does not trust it (OpenSSL: self-signed certificate, 18)",
    "purpose": "it is not a server certificate (OpenSSL: unsuitable certificate purpose, 26)",
}
_HERE = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])


def leaf(authority: trustme.CA, wrong: str = "") -> trustme.LeafCert:
    """A certificate for `localhost`, wrong in one of the ways of `WRONG`; right without one."""
    now = datetime.now(UTC)
    if wrong == "purpose":
        return _made(authority, [ExtendedKeyUsageOID.CLIENT_AUTH])
    if wrong == "self-signed":
        return _made(None, [ExtendedKeyUsageOID.SERVER_AUTH])
    signer = trustme.CA() if wrong == "authority" else authority
    return signer.issue_cert(
        "elsewhere.example" if wrong == "name" else "localhost",
        not_before=now + timedelta(days=1) if wrong == "early" else None,
        not_after=now - timedelta(days=1) if wrong == "expired" else None,
    )


def _made(authority: trustme.CA | None, uses: list[x509.ObjectIdentifier]) -> trustme.LeafCert:
    key: Any = ec.generate_private_key(ec.SECP256R1())
    signer, issuer = key, _HERE
    if authority is not None:
        signer = load_pem_private_key(authority.private_key_pem.bytes(), None)
        issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    made = (
        x509.CertificateBuilder(issuer, _HERE, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .sign(signer, hashes.SHA256())
    )
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(key.private_bytes(*form), made.public_bytes(Encoding.PEM), [])


@contextmanager
def speaking_tls(certificate: trustme.LeafCert, behind: int | None = None) -> Iterator[str]:
    """A server that shakes hands with this certificate, and passes on to a port of 127.0.0.1 or hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=_serve, args=(listener, context, behind), daemon=True)
        accepting.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(5)


def _serve(listener: socket.socket, context: ssl.SSLContext, behind: int | None) -> None:
    # Ends with the listener.
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_shake_hands, args=(near, context, behind), daemon=True).start()


def _shake_hands(near: socket.socket, context: ssl.SSLContext, behind: int | None) -> None:
    near.settimeout(20)
    # A client that does not believe the certificate breaks off, which is what is tested at its end.
    with suppress(OSError), near, context.wrap_socket(near, server_side=True) as secured:
        if behind is not None:
            _pass_on(secured, behind)


def _pass_on(secured: ssl.SSLSocket, behind: int) -> None:
    with socket.create_connection(("127.0.0.1", behind), timeout=20) as far:
        while ready := [secured] if secured.pending() else select.select([secured, far], [], [], 20)[0]:
            for one in ready:
                content = one.recv(65536)
                if not content:
                    return
                (far if one is secured else secured).sendall(content)
