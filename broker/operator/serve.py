"""`guestkey serve` and `guestkey worker`: the processes of an installation, and the TLS of `serve`.

Web replicas on this machine have the issuer identity and no other; the worker those of ender and setup. A certificate
is checked before anything listens, and taken anew when its files change.
"""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from time import sleep

import structlog
import uvicorn
from cryptography import x509
from fastapi import FastAPI
from prometheus_client import start_http_server
from uvicorn.supervisors import Multiprocess

from broker.base.errors import Invalid
from broker.operator.console import load
from broker.runtime.parts import Parts, vault_of
from broker.web import connections
from broker.web.observability import configure_logging
from broker.worker.worker import Worker

GRACE_SECONDS = 20
# As uvicorn's own command ends then.
_NOT_STARTED = 3
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


def serve(host: str, port: int, workers: int, files: CertificateFiles | None) -> None:
    """Serve until told to stop (SIGTERM, SIGINT); what is under way is finished first, for 20 s at most.

    Args:
        files: serve TLS with these; None for a proxy on the way here that does.

    Raises:
        Invalid: the certificate cannot be served, or secrets would cross a network in the clear.
    """
    settings = load()
    configure_logging(settings.log_level)
    if files is not None:
        # This machine's clock: no database has been asked yet.
        check_certificate(files, settings.public_url.host or "", datetime.now(UTC))
    elif not settings.trusted_proxies:
        _require_tls(host, settings.public_url.scheme)
    if workers == 1:
        _run(host, port, workers, files)
        return
    # Several processes, one set of numbers: each writes its own file here, whoever is scraped adds them up.
    with tempfile.TemporaryDirectory(prefix="guestkey-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _run(host, port, workers, files)


def application() -> FastAPI:
    """The application of one process; uvicorn calls this in each."""
    # Here, because the process that only starts others, or refuses to serve, has no use for it.
    from broker.web.app import create_app

    settings = load()
    configure_logging(settings.log_level)
    return create_app(settings)


def _require_tls(host: str, public_scheme: str) -> None:
    if not _is_loopback(host):
        wrong = f"Serving on {host} without TLS would send credentials in the clear."
    elif public_scheme == "https":
        wrong = "The public address is https, so without TLS or a named proxy nothing would be answered."
    else:
        return
    raise Invalid(
        wrong,
        advice="Give --tls-cert and --tls-key, or name the proxy that terminates TLS in GUESTKEY_TRUSTED_PROXIES.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _run(host: str, port: int, workers: int, files: CertificateFiles | None) -> None:
    config = uvicorn.Config(
        "broker.operator.serve:application",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        ssl_context_factory=ContextFactory(files) if files else None,
        **connections.options(),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # Bound here however many processes there are: left to the event loop, `::` would be IPv6 alone.
    bound = config.bind_socket()
    if workers > 1:
        Multiprocess(config, sockets=[bound]).run()
        return
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[bound])
    if not server.started:
        sys.exit(_NOT_STARTED)


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


def check_certificate(files: CertificateFiles, host: str, now: datetime) -> None:
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
        served = Served(_new_context(self.files))
        listening = _new_context(self.files)
        listening.sni_callback = served.choose
        threading.Thread(target=_reload_when_changed, args=(served, self.files), name="tls", daemon=True).start()
        return listening


@dataclass(slots=True)
class Served:
    """The context of new connections. Replaced as a whole: OpenSSL loads a certificate and its key one by one."""

    context: ssl.SSLContext

    def choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        """Called by OpenSSL in every handshake, also in those that name no server."""
        connection.context = self.context


def _reload_when_changed(served: Served, files: CertificateFiles) -> None:
    """New connections get what the files hold; a half-written or wrong pair leaves the one before in use."""
    seen = files.modified_at()
    while True:
        sleep(LOOK_EVERY_SECONDS)
        try:
            latest = files.modified_at()
            if latest == seen:
                continue
            served.context = _new_context(files)
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


def work(metrics_host: str, metrics_port: int | None) -> None:
    """Work until told to stop (SIGTERM, SIGINT); what is under way is finished first."""
    settings = load()
    configure_logging(settings.log_level)
    parts = Parts.build(settings, identity="ender")
    setup = vault_of(settings, "setup") if settings.bao_setup is not None else None
    running = Worker(parts, setup)
    running.install_signal_handlers()
    server = start_http_server(metrics_port, metrics_host)[0] if metrics_port is not None else None
    log.info("worker.started", registers_slices=setup is not None)
    try:
        running.run()
    finally:
        if server is not None:
            server.shutdown()
        parts.close()
        log.info("worker.stopped")
