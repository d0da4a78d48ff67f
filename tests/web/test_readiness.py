"""/readyz names what is missing, each check by its own fault; /healthz does not care."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from broker.base.settings import Settings
from broker.embedded.children import free_port
from broker.models import PolicyInForce, PolicyRevision
from broker.runtime.parts import Parts, vault_of
from broker.web import health
from tests.support.world import World
from tests.web.conftest import Replica


@contextmanager
def missing(settings: Settings, parts: Parts) -> Iterator[dict[str, Any]]:
    """What a fresh replica says is missing, filled in at the block's start."""
    replica = Replica(settings, parts)
    replica.start()
    try:
        answer = httpx.get(f"{replica.url}/readyz", timeout=20)
        assert httpx.get(f"{replica.url}/healthz").json() == {"status": "ok"}
        body = answer.json()
        assert (answer.status_code == 200) == body["ready"] == (not body["missing"])
        yield body["missing"]
    finally:
        replica.stop()


def test_ready_without_findings(settings: Settings, parts: Parts) -> None:
    with missing(settings, parts) as named:
        assert named == {}


def test_readiness_reports_a_wrong_clock(settings: Settings, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "time", lambda: time.time() - 7)
    with missing(settings, parts) as named:
        assert list(named) == ["clock"] and "differs from PostgreSQL's by 7" in named["clock"]


def test_readiness_reports_unloadable_rules(settings: Settings, parts: Parts) -> None:
    with parts.database.transaction() as tx:
        before = tx.execute(select(PolicyInForce.revision)).scalar_one()
        broken = PolicyRevision(rules="nonsense", networks="", grammar="nonsense")
        tx.add(broken)
        tx.flush()
        tx.execute(update(PolicyInForce).values(revision=broken.number))
    try:
        with missing(settings, parts) as named:
            assert list(named) == ["rules"] and "nonsense" not in named["rules"]
    finally:
        with parts.database.transaction() as tx:
            tx.execute(update(PolicyInForce).values(revision=before))


def test_readiness_reports_pending_migrations(settings: Settings, parts: Parts, world: World) -> None:
    with world.admin("guestkey") as connection:
        row = connection.execute("SELECT version_num FROM guestkey.alembic_version").fetchone()
        connection.execute("UPDATE guestkey.alembic_version SET version_num = '0001'")
        try:
            with missing(settings, parts) as named:
                assert list(named) == ["migrations"] and "guestkey migrate" in named["migrations"]
        finally:
            connection.execute("UPDATE guestkey.alembic_version SET version_num = %s", row)


def test_readiness_reports_a_read_only_database(settings: Settings, parts: Parts, world: World) -> None:
    with world.admin("guestkey") as admin:
        admin.execute("ALTER ROLE guestkey_app SET default_transaction_read_only = on")
        database = type(parts.database)(str(settings.database_url.get_secret_value()), pool_size=2)
        try:
            with missing(settings, replace(parts, database=database)) as named:
                assert list(named) == ["postgresql"] and "accepts no writes" in named["postgresql"]
        finally:
            admin.execute("ALTER ROLE guestkey_app RESET default_transaction_read_only")
            database.close()


def test_readiness_reports_unresponsive_backends(settings: Settings, parts: Parts) -> None:
    nowhere = settings.model_copy(update={"bao_addr": f"http://127.0.0.1:{free_port()}"})
    with missing(settings, replace(parts, vault=vault_of(nowhere, "issuer"))) as named:
        assert list(named) == ["openbao"]
    gone = f"postgresql://guestkey_app:x@127.0.0.1:{free_port()}/guestkey"
    database = type(parts.database)(gone, pool_size=2, timeout=1)
    with missing(settings, replace(parts, database=database)) as named:
        assert {"postgresql", "migrations", "clock", "rules"} == set(named)
        assert "127.0.0.1" not in str(named)
