"""TLS of `guestkey serve`: the certificate is checked before anything listens, and taken anew when its files change."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from time import sleep

import structlog
import uvicorn
from cryptography import x509

from broker.base.errors import Invalid

log = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 2.0
_GROUP_AND_OTHERS = 0o077
# For TLS 1.2: authenticated encryption and forward secrecy, Mozilla's intermediate configuration without DHE, which
# needs parameters of its own (https://wiki.mozilla.org/Security/Server_Side_TLS). TLS 1.3 has no others.
_CIPHERS = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A chain in PEM, the server's own certificate first, and its key, which only this user may read."""

    certificate: Path
    key: Path

    def modified_at(self) -> tuple[float, float]:
        """When the files were last written, in seconds since 1970.

        Raises:
            OSError: one of them is gone.
        """
        return self.certificate.stat().st_mtime, self.key.stat().st_mtime


def check(files: CertificateFiles, host: str, now: datetime) -> None:
    """Refuse a certificate nobody could use.

    Args:
        host: the name people reach the portal by; a certificate for another one is only warned of, because a proxy
            may be what connects here.

    Raises:
        Invalid: a file is missing, readable by others, not PEM, past its end, or the key is not the certificate's.
    """
    try:
        chain = x509.load_pem_x509_certificates(files.certificate.read_bytes())
        readable = files.key.stat().st_mode & _GROUP_AND_OTHERS
    except OSError as error:
        raise _unusable(f"{error.filename}: {error.strerror}.") from error
    except ValueError as error:
        raise _unusable(f"{files.certificate} holds no certificate in PEM.") from error
    if readable:
        raise _unusable(f"{files.key} can be read by others.", f"chmod 600 {files.key}")
    own = chain[0]
    if not own.not_valid_before_utc <= now < own.not_valid_after_utc:
        span = f"{own.not_valid_before_utc:%Y-%m-%d %H:%M} to {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise _unusable(f"{files.certificate} is valid from {span} only.", "Renew it.")
    _new_context(files)
    if not _is_for_host(own, host):
        log.warning("tls.other_name", host=host, advice="Browsers refuse a certificate that does not name it.")


@dataclass(frozen=True, slots=True)
class ContextFactory:
    """What uvicorn makes each process's context with; can be sent to a process."""

    files: CertificateFiles

    def __call__(self, _config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = _new_context(self.files)
        threading.Thread(target=_reload_when_changed, args=(context, self.files), name="tls", daemon=True).start()
        return context


def _reload_when_changed(context: ssl.SSLContext, files: CertificateFiles) -> None:
    """New connections get what the files hold; a half-written or wrong pair leaves the one before in use."""
    seen = files.modified_at()
    while True:
        sleep(LOOK_EVERY_SECONDS)
        try:
            latest = files.modified_at()
            if latest == seen:
                continue
            # Tried on a context of its own: a wrong key would otherwise leave ours with half of a pair.
            _new_context(files)
            context.load_cert_chain(files.certificate, files.key, password=_no_password)
            seen = latest
            log.info("tls.certificate_renewed")
        except (OSError, Invalid) as error:
            log.error("tls.not_renewed", error=str(error))


def _new_context(files: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        raise _unusable(f"{files.key} is not the unencrypted key of {files.certificate}.") from error
    return context


def _no_password() -> str:
    """Never ask on a terminal: nobody sits at a server's."""
    return ""


def _is_for_host(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        _, _, parent = host.partition(".")
        return not {host.lower(), f"*.{parent.lower()}"}.isdisjoint(names.get_values_for_type(x509.DNSName))


def _unusable(what: str, advice: str = "Give a certificate chain and its key in PEM.") -> Invalid:
    return Invalid(f"TLS cannot be served: {what}", advice=advice)
