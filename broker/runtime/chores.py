"""Recurring work, shared: of any number of workers one takes a round on, the others wait for the next.

A round is claimed before it begins and with nothing held meanwhile: a worker that dies in it costs that one round.
"""

from __future__ import annotations

from sqlalchemy import text

from broker.base.database import Database, Transaction

REDECIDE = "redecide"
RECONCILE = "reconcile"
LOOK = "look"
GUEST_LIMITS = "guest-limits"
RECONCILE_SECONDS = 60.0

# Due further ahead than a round lasts, it was set by a clock that has since been put back.
_TAKE_ON = text(
    """
    INSERT INTO guestkey.chore AS c (name, due_at)
    VALUES (:name, clock_timestamp() + make_interval(secs => :seconds))
    ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at
     WHERE c.due_at <= clock_timestamp() OR c.due_at > excluded.due_at
    RETURNING name
    """
)
_SET = text(
    """
    INSERT INTO guestkey.chore (name, due_at) VALUES (:name, clock_timestamp() + make_interval(years => :years))
    ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at
    """
)
_YEAR_SECONDS = 365 * 24 * 3600.0
_LEFT = text("SELECT extract(epoch FROM due_at - clock_timestamp())::float FROM guestkey.chore WHERE name = :name")
_AT_ONCE = text("UPDATE guestkey.chore SET due_at = clock_timestamp() WHERE name = :name")


def prove_write(tx: Transaction) -> None:
    """Write a row of no consequence: a server whose disk is full, or a replica for reading, still answers questions.

    Raises:
        DBAPIError: the records take no writes.
    """
    # Of a name no round has.
    tx.execute(_SET, {"name": "write", "years": 0})


def take_on(database: Database, name: str, seconds: float) -> float:
    """Take on a round that comes every so many seconds. Returns 0 if it is now this worker's, else how long to wait."""
    with database.transaction() as tx:
        if tx.execute(_TAKE_ON, {"name": name, "seconds": seconds}).scalar_one_or_none() is not None:
            return 0.0
        left = tx.execute(_LEFT, {"name": name}).scalar_one()
    return max(0.05, min(seconds, float(left)))


def is_done(tx: Transaction, name: str) -> bool:
    """Whether work that is done once was noted as done."""
    left = tx.execute(_LEFT, {"name": name}).scalar_one_or_none()
    return left is not None and left > _YEAR_SECONDS


def note_done(tx: Transaction, name: str) -> None:
    """Note work that is done once: it is not due for a hundred years."""
    tx.execute(_SET, {"name": name, "years": 100})


def at_once(tx: Transaction, name: str) -> None:
    """Let the next round begin when this transaction commits."""
    tx.execute(_AT_ONCE, {"name": name})
