"""Why a server's certificate was not believed, in OpenSSL's own terms, and what to do about it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

# X509_V_ERR_… of OpenSSL (openssl-verification-options(1), x509_vfy.h).
_NOT_YET, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_ABOVE, _UNKNOWN_ISSUER, _UNKNOWN_SIGNER = 18, 19, 20, 21
_REVOKED, _INVALID_CA, _PURPOSE = 23, 24, 26
_OTHER_NAME, _OTHER_ADDRESS = 62, 64
_SENTENCES = {
    _NOT_YET: "it is not valid yet",
    _EXPIRED: "it has expired",
    _SELF_SIGNED: "it is self-signed, and this machine does not trust it",
    _SELF_SIGNED_ABOVE: "this machine does not trust the authority that signed it",
    _UNKNOWN_ISSUER: "it is not signed by a trusted authority",
    _UNKNOWN_SIGNER: "it is not signed by a trusted authority",
    _REVOKED: "its authority has revoked it",
    _INVALID_CA: "its signer is not a certificate authority",
    _PURPOSE: "it is not a server certificate",
    _OTHER_NAME: "it is not for {host}",
    _OTHER_ADDRESS: "it is not for {host}",
}


@dataclass(frozen=True, slots=True)
class UntrustedCertificate:
    """Why, as the end of a sentence; and what whoever connects can do, as a sentence."""

    why: str
    mend: str


def explain_certificate_error(error: ssl.SSLCertVerificationError, host: str) -> UntrustedCertificate:
    """Why the certificate of `host` was refused; `why` ends with OpenSSL's own words and number."""
    said = _SENTENCES.get(error.verify_code, "it cannot be verified").format(host=host)
    # Another machine's name may stand in what OpenSSL says of names; all else is fixed text.
    own = "hostname mismatch" if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS) else error.verify_message
    return UntrustedCertificate(f"{said} (OpenSSL: {own}, {error.verify_code})", _mend(error.verify_code))


def untrusted_certificate_in(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The refusal of a certificate that an error was raised for, if it was."""
    return next((one for one in causes(error) if isinstance(one, ssl.SSLCertVerificationError)), None)


def explain_handshake_error(error: BaseException | None) -> str:
    """OpenSSL's own word for why no TLS came about at all, as the end of a sentence; empty: that was not it."""
    failed = next((one for one in causes(error) if isinstance(one, ssl.SSLError) and one.reason), None)
    return f"no TLS connection could be made (OpenSSL: {failed.reason.lower().replace('_', ' ')})" if failed else ""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that led to it. Libraries put the cause into an argument as often as behind the error."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (*one.args, getattr(one, "reason", None))
        waiting += [one.__cause__, one.__context__, *(each for each in inner if isinstance(each, BaseException))]


def _mend(code: int) -> str:
    if code in (_NOT_YET, _EXPIRED):
        return "Check this machine's clock; if it is right, the operator renews the certificate."
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return "Use the name the installation goes by."
    if code in (_REVOKED, _PURPOSE, _INVALID_CA):
        return "Do not continue. The operator must get a server certificate (extendedKeyUsage serverAuth)."
    return "If it is your organisation's own: SSL_CERT_FILE=/path/to/ca.pem. Otherwise someone may be in between."
