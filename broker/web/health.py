"""Whether this replica lives and can serve, and its numbers: /healthz, /readyz, /metrics."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterator
from threading import Lock
from time import monotonic, time
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broker import migrations
from broker.base.addresses import parse
from broker.base.database import clock
from broker.base.errors import BackendDown, Invalid, NotFound
from broker.keystore.vault import VaultRefused
from broker.kinds.discovery import kinds
from broker.leases import holdings, reconciling
from broker.models import LIVE_STATES
from broker.runtime import chores, rulebook
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
router = APIRouter(include_in_schema=False)
LARGEST_SKEW = 5.0
_KEPT_SECONDS = 1.0


class NotReady(Exception):
    """One thing that is missing, in a sentence for the operator; no text of a backend."""


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers. Says nothing about its backends."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request) -> JSONResponse:
    """Whether this replica can decide and issue now; names everything that is missing."""
    checks = request.app.state.kept_checks.get(request.app.state.parts)
    missing = {name: said for name, said in checks.items() if said != "ok"}
    body = {"ready": not missing, "missing": missing, "checks": checks}
    return JSONResponse(body, 503 if missing else 200)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus' text, for the bearer of the metrics token or, without one set, for this machine only."""
    parts: Parts = request.app.state.parts
    if not _may_scrape(parts, request):
        raise NotFound("There is nothing here.")
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    states = CollectorRegistry()
    states.register(_LeaseStates(parts))
    return Response(generate_latest(registry) + generate_latest(states), media_type=CONTENT_TYPE_LATEST)


def check_all(parts: Parts) -> dict[str, str]:
    """Every check by name: `ok`, or a sentence that says what is missing."""
    return {name: _told(check, parts) for name, check in _CHECKS.items()}


def _told(check: Callable[[Parts], None], parts: Parts) -> str:
    try:
        check(parts)
    except NotReady as missing:
        return str(missing)
    except (BackendDown, Invalid) as error:
        return error.detail
    except (SQLAlchemyError, VaultRefused) as error:
        log.warning("ready.check_failed", check=check.__name__, error=type(error).__name__)
        return "The check itself failed; see the log."
    return "ok"


def _postgresql(parts: Parts) -> None:
    # A write, committed: a full disk or a replica for reading answers questions all the same.
    try:
        with parts.database.transaction() as tx:
            chores.prove_write(tx)
    except DBAPIError as error:
        log.warning("ready.records_not_written", error=type(error.orig).__name__)
        raise NotReady(
            "The database accepts no writes: check PostgreSQL's disk, and whether it is a replica."
        ) from error


def _openbao(parts: Parts) -> None:
    parts.vault.healthy()
    if parts.vault.standby_answers():
        raise NotReady(
            "OpenBao's standby nodes answer reads from stale data: set disable_standby_reads = true "
            "in the configuration of every node and restart it."
        )


def _migrations(parts: Parts) -> None:
    if migrations.pending(parts.database.engine):
        raise NotReady("Migrations are pending: run `guestkey migrate`.")


def _clock(parts: Parts) -> None:
    with parts.database.transaction() as tx:
        before = time()
        theirs = clock(tx).timestamp()
        after = time()
    skew = max(before - theirs, theirs - after, 0.0)
    if skew > LARGEST_SKEW:
        raise NotReady(f"This machine's clock differs from PostgreSQL's by {skew:.1f} s; at most 5 are allowed.")


def _rules(parts: Parts) -> None:
    with parts.database.transaction() as tx:
        revision = rulebook.number_in_force(tx)
        if revision is None:
            raise NotReady("No policy is in force: run `guestkey bootstrap`.")
        if parts.rulebook.at(tx, revision) is None:
            raise NotReady(f"Policy revision {revision} cannot be loaded, so everything is denied.")


_CHECKS: dict[str, Callable[[Parts], None]] = {
    "postgresql": _postgresql,
    "migrations": _migrations,
    "clock": _clock,
    "rules": _rules,
    "openbao": _openbao,
}


class KeptChecks:
    """The last answer, for a second: probes may not become a load of their own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._at = 0.0
        self._checks: dict[str, str] = {}

    def get(self, parts: Parts) -> dict[str, str]:
        """Every check by name, as `check_all` answers."""
        with self._lock:
            if not self._checks or monotonic() - self._at > _KEPT_SECONDS:
                self._checks = check_all(parts)
                self._at = monotonic()
            return self._checks


def _may_scrape(parts: Parts, request: Request) -> bool:
    token = parts.settings.metrics_token
    if token is not None:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(sent.encode(), token.get_secret_value().encode())
    # A proxy on this machine would make the whole world look local: it gives itself away by its headers.
    if any(name.startswith("x-forwarded") or name in ("forwarded", "via", "x-real-ip") for name in request.headers):
        return False
    address = parse(request.client.host if request.client else None)
    return address is not None and address.is_loopback


class _LeaseStates:
    """Silent places, and live leases by state: counted over a partial index, so that ended leases cost nothing."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Any]:
        """See `prometheus_client.registry.Collector`."""
        family = GaugeMetricFamily("guestkey_leases", "Leases that have not ended, by state.", labels=["state"])
        with self._parts.database.transaction() as tx:
            counted = holdings.count_live(tx)
            silent = reconciling.count_silent(tx)
        for state in LIVE_STATES:
            family.add_metric([state], counted.get(state, 0))
        yield family
        places = GaugeMetricFamily(
            "guestkey_silent_places",
            "Backends that could not list the credentials they hold, by kind.",
            labels=["kind"],
        )
        for kind in sorted(kinds):
            places.add_metric([kind], silent.get(kind, 0))
        yield places
