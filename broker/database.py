"""PostgreSQL, where the records are: one engine a process, one transaction a step, its clock as our `now`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import sessionmaker

from broker.errors import BackendDown, Conflict

__all__ = ["Database", "Transaction", "notify", "now"]


class Database:
    """The broker's own database, as the application role.

    Args:
        url: `postgresql://user:password@host:port/dbname`.
        pool_size: connections kept open by this process.
        timeout: seconds to wait for a connection or a lock; a statement may take three times that.
    """

    def __init__(self, url: str, *, pool_size: int = 20, timeout: float = 3.0) -> None:
        milliseconds = int(timeout * 1000)
        options = (
            f"-c lock_timeout={milliseconds} -c statement_timeout={milliseconds}"
            f" -c idle_in_transaction_session_timeout={10 * milliseconds} -c timezone=UTC"
        )
        self.engine: Engine = create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": max(2, int(timeout)),
                "options": options,
                "application_name": "guestkey",
                # A server that froze answers nothing, not even to a cancel: the kernel must give up for us.
                "tcp_user_timeout": milliseconds,
                "keepalives_idle": 10,
            },
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            BackendDown: PostgreSQL is gone, too slow, or the pool is used up.
            Conflict: two transactions collided (deadlock, serialization) and this one lost.
        """
        try:
            with self._sessions() as session, session.begin():
                yield session
        except PoolTimeout as error:
            raise _down() from error
        except DBAPIError as error:
            raise _translate(error) from error

    def close(self) -> None:
        """Close every connection; the database may be used again afterwards."""
        self.engine.dispose()


def now(tx: Transaction) -> datetime:
    """PostgreSQL's clock at this moment (not at the transaction's start), in UTC."""
    moment: datetime = tx.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def notify(tx: Transaction, channel: str, payload: str = "") -> None:
    """Wake listeners of the channel when this transaction commits."""
    tx.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


def _translate(error: DBAPIError) -> Exception:
    state: Any = getattr(error.orig, "sqlstate", None)
    if state in ("40001", "40P01"):
        return Conflict("Two changes of the same record collided.", advice="Try again.")
    if state == "55P03":
        return Conflict("Another change of the same record is still under way.", advice="Try again in a moment.")
    gone = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return _down() if gone else error


def _down() -> BackendDown:
    return BackendDown(
        "The records cannot be reached, so nothing can be allowed.",
        backend="postgresql",
        advice="Try again in a minute. If it lasts, tell the operator: /readyz names what is missing.",
    )
