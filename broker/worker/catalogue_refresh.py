"""Reading what connected databases hold, by the worker as registrar. Asked for in `broker.registry.connections`."""

from __future__ import annotations

import structlog
from sqlalchemy import delete, insert, select, update

from broker.base.database import now as clock
from broker.base.errors import BackendDown
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.values import FoundTable
from broker.log import audit
from broker.models import Catalogue, CatalogueTable
from broker.registry import connections
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
_AT_ONCE = 5


def read_waiting(parts: Parts, setup: Vault) -> int:
    """Read every catalogue that was asked for. Returns how many were read."""
    with parts.database.transaction() as tx:
        waiting = tx.scalars(select(Catalogue.connection).where(Catalogue.state == "waiting").limit(_AT_ONCE)).all()
    read = 0
    for name in waiting:
        try:
            tables, cut = connections.CATALOGUE_KIND.read_catalogue(setup, name)
        except (BackendDown, VaultRefused) as error:
            log.warning("catalogue.failed", connection=name, error=type(error).__name__)
            _fail(parts, name)
        else:
            _keep(parts, name, tables, cut=cut)
            read += 1
    return read


def _keep(parts: Parts, name: str, tables: list[FoundTable], *, cut: bool) -> None:
    """Replace what was known of a connection, all at once."""
    with parts.database.transaction() as tx:
        now = clock(tx)
        values = {"state": "ready", "detail": "", "read_at": now, "tables": len(tables), "cut": cut}
        waiting = (Catalogue.connection == name, Catalogue.state == "waiting")
        if tx.execute(update(Catalogue).where(*waiting).values(values).returning(Catalogue.connection)).first() is None:
            return
        tx.execute(delete(CatalogueTable).where(CatalogueTable.connection == name))
        if tables:
            rows = [
                {
                    "connection": name,
                    "schema": found.schema,
                    "name": found.name,
                    "rows": found.rows,
                    "usable": found.usable,
                    "notes": found.notes,
                    "columns": found.columns,
                }
                for found in tables
            ]
            tx.execute(insert(CatalogueTable), rows)
        audit.record(tx, "catalogue.read", actor=audit.SYSTEM, subject=name, now=now, details={"tables": len(tables)})


def _fail(parts: Parts, name: str) -> None:
    detail = "The database is not responding, or the worker cannot log in to it."
    with parts.database.transaction() as tx:
        waiting = (Catalogue.connection == name, Catalogue.state == "waiting")
        failed = update(Catalogue).where(*waiting).values(state="failed", detail=detail)
        if tx.execute(failed.returning(Catalogue.connection)).first() is not None:
            audit.record(tx, "catalogue.failed", actor=audit.SYSTEM, subject=name, now=clock(tx))
