"""`guestkey worker`: ends, sweeps, decides again and registers; with the ender and setup identities."""

from __future__ import annotations

import structlog
from prometheus_client import start_http_server

from broker.operator.console import load
from broker.runtime.parts import Parts, vault_of
from broker.web.observability import configure_logging
from broker.worker.worker import Worker

log = structlog.get_logger(__name__)


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
