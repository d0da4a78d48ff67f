"""What a guest's session in PostgreSQL may take, and ending those that take more. docs/guests-who-fight.md says why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg

Session = psycopg.Connection[tuple[Any, ...]]
# The user's own timeout is 60 s: who reaches this has switched it off.
STATEMENT = timedelta(seconds=90)
TRANSACTION = timedelta(minutes=15)
# A query of hundreds of partitions takes some thousand; a server's table of locks has room for 12,800 by default.
LOCKS = 4000


def end_overlong(
    session: Session, *, statement: timedelta = STATEMENT, transaction: timedelta = TRANSACTION, locks: int = LOCKS
) -> list[str]:
    """End guests' sessions that go beyond; returns their users' names.

    Raises:
        psycopg.Error: the server refuses, or goes away meanwhile.
    """
    query = "SELECT guestkey_ops.end_overlong(%s, %s, %s)"
    try:
        return [str(user) for (user,) in session.execute(query, (statement, transaction, locks)).fetchall()]
    except psycopg.errors.UndefinedFunction:
        return []
