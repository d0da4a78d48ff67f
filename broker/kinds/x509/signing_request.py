"""What a guest brings for an x509 credential: a signing request (RFC 2986), of which only the key counts."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from broker.base.errors import Invalid
from broker.base.private_keys import is_private

FIELD = "/public_key"
LONGEST = 16 * 1024
_BEGIN, _END = "-----BEGIN CERTIFICATE REQUEST-----", "-----END CERTIFICATE REQUEST-----"
_OLD = "NEW CERTIFICATE REQUEST"
_WEAKEST_RSA, _LARGEST_RSA, _EXPONENT = 3072, 8192, 65537
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MAKE = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout guest.key -subj /CN=guest"
ADVICE = f"Make a new one: {_MAKE}"


def check(text: str) -> str:
    """The request in canonical PEM. Its names are nothing to us: the certificate carries the lease's.

    Raises:
        Invalid: it is no signing request, its key is too weak, or it asks for what guests do not get.
    """
    request = _parsed(_block(text))
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


def _parsed(block: str) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(block.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refused("The signing request cannot be read: it is damaged or cut short.") from error


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
