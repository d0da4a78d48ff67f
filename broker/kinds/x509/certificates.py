"""What a guest brings, a signing request (RFC 2986) of which only the key counts, and what its certificate says.

What OpenBao answers is believed only so far: what reads it raises `Unsound` where it is not as it must be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.base.errors import BackendDown, Invalid
from broker.base.private_keys import is_private
from broker.kinds.base import TRY_AGAIN

DOMAIN = "lease.guestkey.internal"
URI = "spiffe://guestkey/lease/"
E = TypeVar("E", bound=x509.ExtensionType)
_HANDLE = re.compile(r"[a-z0-9]{6}-[a-z0-9]{1,40}")
FIELD = "/public_key"
LONGEST = 16 * 1024
_BEGIN, _END = "-----BEGIN CERTIFICATE REQUEST-----", "-----END CERTIFICATE REQUEST-----"
_OLD = "NEW CERTIFICATE REQUEST"
_WEAKEST_RSA, _LARGEST_RSA, _EXPONENT = 3072, 8192, 65537
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MAKE = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout guest.key -subj /CN=guest"
ADVICE = f"Make a new one: {_MAKE}"


class Unsound(BackendDown):
    """OpenBao answered, and what it said cannot be so. `why` is for the log; people are told less."""

    def __init__(self, why: str) -> None:
        detail = "The key store's certificate is not what was asked for."
        super().__init__(detail, backend="openbao", advice=TRY_AGAIN)
        self.why = why


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
    """Parse one."""
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unsound("an unreadable certificate") from error


def lease_certificate(certificate: x509.Certificate) -> LeaseCertificate:
    """What a stored certificate says of lease and gateway; anything may be stored there, the CA itself too."""
    names = [str(name.value) for name in _names(certificate) if isinstance(name, x509.UniformResourceIdentifier)]
    handle = names[0].removeprefix(URI) if len(names) == 1 and names[0].startswith(URI) else ""
    organisations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    connection = str(organisations[0].value) if organisations else ""
    known = handle if _HANDLE.fullmatch(handle) else ""
    return LeaseCertificate(known, connection, certificate.not_valid_after_utc)


def check_issued(
    certificate: x509.Certificate, issuer: x509.Certificate, request: x509.CertificateSigningRequest, handle: str
) -> None:
    """Hold what was signed to what was asked for: key, names, use, signature."""
    if certificate.public_key() != request.public_key():
        raise Unsound("a certificate for another key")
    if _names(certificate) != [x509.UniformResourceIdentifier(uri(handle))]:
        raise Unsound("a certificate with other names than the lease's")
    if [str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] != [
        common_name(handle)
    ]:
        raise Unsound("a certificate of another subject")
    if list(_extension(certificate, x509.ExtendedKeyUsage) or []) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise Unsound("a certificate for other uses than a client's")
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or constraints.ca:
        raise Unsound("a certificate that is an authority")
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Unsound("a certificate the authority did not sign") from error


def read_crl(der: bytes, issuer: x509.Certificate) -> x509.CertificateRevocationList:
    """A revocation list that the authority signed."""
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
    """Whether an OCSP answer calls the certificate revoked."""
    try:
        answer = ocsp.load_der_ocsp_response(der)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Unsound("no OCSP answer")
        if answer.serial_number != certificate.serial_number:
            raise Unsound("an OCSP answer about another certificate")
        return answer.certificate_status is ocsp.OCSPCertStatus.REVOKED
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unsound("an unreadable OCSP answer") from error


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(_extension(certificate, x509.SubjectAlternativeName) or [])


def _extension(certificate: x509.Certificate, of: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(of).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def check_request(text: str) -> str:
    """The request in canonical PEM. Its names are nothing to us: the certificate carries the lease's.

    Raises:
        Invalid: it is no signing request, its key is too weak, or it asks for what guests do not get.
    """
    block = _block(text)
    try:
        request = x509.load_pem_x509_csr(block.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refused("The signing request cannot be read: it is damaged or cut short.") from error
    try:
        genuine = request.is_signature_valid
    except (UnsupportedAlgorithm, ValueError) as error:
        raise _refused("Its signature is of a kind that is not accepted.") from error
    if not genuine:
        raise _refused("Its signature does not match its key: it was not made with the private key.")
    _check_key(request)
    _check_extensions(request)
    return request.public_bytes(Encoding.PEM).decode()


def _block(text: str) -> str:
    if is_private(text):
        raise _refused(
            "That was the private key, and it has now been sent over the network.",
            advice=f"Delete it, create a new key, and send only the request. {ADVICE}",
        )
    if len(text) > LONGEST:
        raise _refused("A signing request is at most 16 KB.")
    if "BEGIN CERTIFICATE-----" in text:
        raise _refused("That is a certificate, not a signing request.")
    if "BEGIN PUBLIC KEY" in text or text.lstrip().startswith(("ssh-", "ecdsa-", "sk-")):
        raise _refused("That is a bare public key: a signing request proves that its private key is yours.")
    block = text.replace("\r\n", "\n").replace(_OLD, "CERTIFICATE REQUEST").strip()
    if not (block.startswith(_BEGIN) and block.endswith(_END)) or block.count("-----BEGIN") != 1:
        raise _refused("That is not one certificate signing request in PEM, from its BEGIN line to its END line.")
    return block


def _check_key(request: x509.CertificateSigningRequest) -> None:
    try:
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refused("Its key is of a kind that is not accepted.") from error
    if isinstance(key, rsa.RSAPublicKey):
        if not _WEAKEST_RSA <= key.key_size <= _LARGEST_RSA:
            raise _refused(f"An RSA key has {_WEAKEST_RSA} to {_LARGEST_RSA} bits; this one has {key.key_size}.")
        if key.public_numbers().e < _EXPONENT:
            raise _refused("The RSA key's public exponent is too small: 65537 is usual.")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise _refused(f"Elliptic curves are P-256, P-384 and P-521; this key is on {key.curve.name}.")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise _refused("Keys are elliptic (P-256, P-384, P-521, Ed25519) or RSA of 3072 bits and more.")


def _check_extensions(request: x509.CertificateSigningRequest) -> None:
    # Openssl insists on a subject, so that is passed over; what is asked for beyond it is refused, not dropped.
    try:
        wishes = request.extensions
    except (ValueError, x509.DuplicateExtension) as error:
        raise _refused("The extensions it asks for cannot be read.") from error
    for wish in wishes:
        if isinstance(wish.value, x509.BasicConstraints) and wish.value.ca:
            raise _refused("It asks to be a certificate authority.")
        if isinstance(wish.value, x509.KeyUsage) and (wish.value.key_cert_sign or wish.value.crl_sign):
            raise _refused("It asks to sign certificates or revocation lists.")
        if isinstance(wish.value, x509.SubjectAlternativeName):
            raise _refused("It asks for names of its own (subjectAltName): the certificate carries the lease's only.")


def _refused(detail: str, *, advice: str = ADVICE) -> Invalid:
    return Invalid(detail, field=FIELD, advice=advice)
