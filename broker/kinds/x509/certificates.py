"""What a guest's certificate says, and reading it back; what OpenBao answers is believed only so far."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DOMAIN = "lease.guestkey.internal"
URI = "spiffe://guestkey/lease/"
E = TypeVar("E", bound=x509.ExtensionType)
_HANDLE = re.compile(r"[a-z0-9]{6}-[a-z0-9]{1,40}")


class Unsound(Exception):
    """A certificate, list or answer is not what it must be. The text is for the log."""


@dataclass(frozen=True, slots=True)
class LeaseCertificate:
    """What of a certificate the broker goes by. `handle` is "" where it is none of a lease's."""

    handle: str
    connection: str
    not_after: datetime


def common_name(handle: str) -> str:
    """The subject's CN, for gateways that see no more than the subject."""
    return f"{handle}.{DOMAIN}"


def uri(handle: str) -> str:
    """The one subject alternative name: the lease, the installation's tag before it."""
    return URI + handle


def serial_of(certificate: x509.Certificate) -> str:
    """The serial as OpenBao writes it."""
    digits = f"{certificate.serial_number:x}"
    digits = digits if len(digits) % 2 == 0 else "0" + digits
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def read_certificate(pem: str) -> x509.Certificate:
    """Parse one.

    Raises:
        Unsound: it cannot be.
    """
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unsound("an unreadable certificate") from error


def lease_certificate(certificate: x509.Certificate) -> LeaseCertificate:
    """What a stored certificate says of lease and gateway; anything may be stored there, the CA itself too."""
    names = _uris(certificate)
    handle = names[0].removeprefix(URI) if len(names) == 1 and names[0].startswith(URI) else ""
    organisations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    connection = str(organisations[0].value) if organisations else ""
    known = handle if _HANDLE.fullmatch(handle) else ""
    return LeaseCertificate(known, connection, certificate.not_valid_after_utc)


def check_issued(
    certificate: x509.Certificate, issuer: x509.Certificate, request: x509.CertificateSigningRequest, handle: str
) -> None:
    """Hold what was signed to what was asked for: key, names, use, signature.

    Raises:
        Unsound: naming what is not so.
    """
    if _key(certificate.public_key()) != _key(request.public_key()):
        raise Unsound("a certificate for another key")
    if _names(certificate) != [x509.UniformResourceIdentifier(uri(handle))]:
        raise Unsound("a certificate with other names than the lease's")
    if [str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] != [
        common_name(handle)
    ]:
        raise Unsound("a certificate of another subject")
    if _uses(certificate) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise Unsound("a certificate for other uses than a client's")
    if _is_authority(certificate):
        raise Unsound("a certificate that is an authority")
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Unsound("a certificate the authority did not sign") from error


def same_key(request: x509.CertificateSigningRequest, issuer: x509.Certificate) -> bool:
    """Whether a request is for the authority's own key."""
    return _key(request.public_key()) == _key(issuer.public_key())


def read_crl(der: bytes, issuer: x509.Certificate) -> x509.CertificateRevocationList:
    """A revocation list that the authority signed.

    Raises:
        Unsound: it is none.
    """
    try:
        crl = x509.load_der_x509_crl(der)
        genuine = crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unsound("an unreadable revocation list") from error
    if not genuine or crl.issuer != issuer.subject:
        raise Unsound("a revocation list the authority did not sign")
    return crl


def ocsp_question(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """What a gateway asks, DER."""
    # SHA-1 names the issuer here and protects nothing; RFC 5019 asks for it and responders need not know others.
    made = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1()).build()  # noqa: S303
    return made.public_bytes(Encoding.DER)


def ocsp_says_revoked(der: bytes, certificate: x509.Certificate) -> bool:
    """Whether an OCSP answer calls the certificate revoked.

    Raises:
        Unsound: it is no answer about this certificate.
    """
    try:
        answer = ocsp.load_der_ocsp_response(der)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Unsound("no OCSP answer")
        if answer.serial_number != certificate.serial_number:
            raise Unsound("an OCSP answer about another certificate")
        return answer.certificate_status is ocsp.OCSPCertStatus.REVOKED
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unsound("an unreadable OCSP answer") from error


def _key(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(_extension(certificate, x509.SubjectAlternativeName) or [])


def _uris(certificate: x509.Certificate) -> list[str]:
    return [str(name.value) for name in _names(certificate) if isinstance(name, x509.UniformResourceIdentifier)]


def _uses(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(_extension(certificate, x509.ExtendedKeyUsage) or [])


def _is_authority(certificate: x509.Certificate) -> bool:
    """Whether it is one, or does not say."""
    found = _extension(certificate, x509.BasicConstraints)
    return found is None or found.ca


def _extension(certificate: x509.Certificate, of: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(of).value
    except (x509.ExtensionNotFound, ValueError):
        return None
