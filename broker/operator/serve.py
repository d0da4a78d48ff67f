"""`guestkey serve`: web replicas on this machine, with the issuer identity and no other."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from broker.base.errors import Invalid
from broker.operator import tls
from broker.operator.console import load
from broker.operator.tls import CertificateFiles, ContextFactory
from broker.web import connections
from broker.web.observability import configure_logging

GRACE_SECONDS = 20
# As uvicorn's own command ends then.
_NOT_STARTED = 3


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
        tls.check(files, settings.public_url.host or "", datetime.now(UTC))
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
