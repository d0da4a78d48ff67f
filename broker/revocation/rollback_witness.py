"""A witness outside the records that they have not gone back in time.

The worker tells OpenBao the number of the newest event. Records that show fewer than the witness has seen were
restored from a backup, and a backup revives what was revoked since: the installation closes itself. A restore of both
to one moment goes unseen; `deploy/restore` therefore closes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import func, select

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import BackendDown
from broker.keystore.vault import VaultRefused
from broker.log import audit
from broker.models import Event, PolicyInForce
from broker.revocation import closing
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
PATH = "witness"


@dataclass(frozen=True, slots=True)
class _Seen:
    """The newest event the witness was told of, and when, by PostgreSQL's clock."""

    event: int
    at: datetime


def update(parts: Parts) -> int:
    """Compare the records with the witness, then tell it how far they are. For the worker.

    Returns 1 if the installation closed because of it.

    Raises:
        BackendDown: the witness cannot be asked.
        VaultRefused: this identity may not speak to it.
    """
    seen = _seen(parts)
    with parts.database.transaction() as tx:
        newest, now = _newest(tx), clock(tx)
        if seen is not None and _is_rolled_back(tx, seen, newest):
            return _close(tx, seen, newest, now)
        closed = tx.execute(select(PolicyInForce.closed_at)).scalar_one_or_none() is not None
    # While closed the witness keeps what it saw, so that the gap can still be told.
    if not closed and (seen is None or newest != seen.event):
        parts.vault.keep(PATH, {"event": str(newest), "at": now.isoformat()})
    return 0


def check(parts: Parts) -> bool:
    """Close the installation if its records went back in time. Returns whether that happened just now.

    Raises:
        BackendDown: the witness cannot be asked.
        VaultRefused: this identity may not speak to it.
    """
    seen = _seen(parts)
    if seen is None:
        return False
    with parts.database.transaction() as tx:
        newest = _newest(tx)
        return _is_rolled_back(tx, seen, newest) and bool(_close(tx, seen, newest, clock(tx)))


def check_once(parts: Parts) -> None:
    """Ask the witness before the first credential of this process, which may have been started after a restore.

    Raises:
        BackendDown: it cannot be asked, so nothing is issued.
    """
    if parts.witnessed:
        return
    try:
        check(parts)
    except VaultRefused as error:
        log.error("witness.refused", error=str(error))
        raise BackendDown(
            "The key store does not allow the broker to check whether its records are up to date.",
            backend="openbao",
            advice="Tell the operator: `deploy/openbao/upgrade` brings its policies up to date.",
        ) from error
    parts.witnessed = True


def _is_rolled_back(tx: Transaction, seen: _Seen, newest: int) -> bool:
    if newest >= seen.event:
        return False
    held_before = tx.execute(select(PolicyInForce.held_before)).scalar_one_or_none()
    # What the witness saw before the last closing for a restore has been dealt with.
    return held_before is None or held_before < seen.at


def _close(tx: Transaction, seen: _Seen, newest: int, now: datetime) -> int:
    missing, until = seen.event - newest, seen.at.isoformat(timespec="seconds")
    why = f"The records were restored from a backup: {missing} events until {until} are missing from them."
    log.error("installation.records_went_back", missing=missing, until=until)
    return int(closing.close(tx, why, actor=audit.SYSTEM, now=now, hold_grants=True) is not None)


def _newest(tx: Transaction) -> int:
    return tx.execute(select(func.coalesce(func.max(Event.number), 0))).scalar_one()


def _seen(parts: Parts) -> _Seen | None:
    found = parts.vault.found_secret(PATH)
    if found is None:
        return None
    return _Seen(int(found["event"]), datetime.fromisoformat(found["at"]))
