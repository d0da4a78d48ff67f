"""PostgreSQL, where the records are: one engine a process, one transaction a step, its clock as our `now`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import sessionmaker

from broker.base.errors import BackendDown, Conflict, Invalid

__all__ = ["Database", "Transaction", "bounded", "clock", "notify", "one_at_a_time"]
T = TypeVar("T")
_IDLE_SECONDS = 0.25


def bounded(seconds: float) -> type[psycopg.Connection[Any]]:
    """A connection class that waits no longer than `seconds` for any answer.

    A server that is frozen acknowledges at the level of TCP and answers nothing: no setting of libpq ends that wait.
    """

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
            try:
                return super().wait(gen, interval, timeout or seconds)
            except psycopg.errors._WaitTimeout as error:
                self.pgconn.finish()
                raise psycopg.OperationalError("no answer in time") from error

    return Bounded


def _note_idle(connection: Any, record: Any) -> None:
    record.info["idle_since"] = monotonic()


def _check_if_idle(connection: psycopg.Connection[Any], record: Any, _proxy: Any) -> None:
    """Ask a connection that lay idle whether it still lives; one used a moment ago need not be asked."""
    if monotonic() - record.info.get("idle_since", monotonic()) < _IDLE_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error as error:
        raise DisconnectionError from error


class Database:
    """The broker's own database, as the application role.

    Args:
        url: `postgresql://user:password@host:port/dbname`.
        pool_size: connections kept open by this process.
        timeout: seconds to wait for a connection, a lock or a statement.
    """

    def __init__(self, url: str, *, pool_size: int = 20, timeout: float = 2.0) -> None:
        milliseconds = int(timeout * 1000)
        connection_class = bounded(timeout + 0.5)
        settings: dict[str, Any] = {
            # libpq knows no shorter one.
            "connect_timeout": max(2, int(timeout)),
            "options": f"-c lock_timeout={milliseconds} -c statement_timeout={milliseconds}"
            f" -c idle_in_transaction_session_timeout={10 * milliseconds} -c timezone=UTC",
            "application_name": "guestkey",
        }
        self.engine: Engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: connection_class.connect(url, **settings),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout,
            # An error's text must not carry what was to be written: hashes, wrapped secrets, names.
            hide_parameters=True,
        )
        event.listen(self.engine, "checkin", _note_idle)
        event.listen(self.engine, "checkout", _check_if_idle)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            BackendDown: PostgreSQL is gone, too slow, or the pool is used up.
            Conflict: two transactions collided (deadlock, serialization) and this one lost.
            Invalid: a text in it could not even be sent.
        """
        try:
            with self._sessions() as session, session.begin():
                yield session
        except PoolTimeout as error:
            raise _down() from error
        except DBAPIError as error:
            raise _translate(error) from error

    @contextmanager
    def transaction_now(self) -> Iterator[tuple[Transaction, datetime]]:
        """One transaction, with PostgreSQL's clock as it begins."""
        with self.transaction() as tx:
            yield tx, clock(tx)

    def close(self) -> None:
        """Close every connection; the database may be used again afterwards."""
        self.engine.dispose()


def clock(tx: Transaction) -> datetime:
    """PostgreSQL's clock at this moment (not at the transaction's start), in UTC."""
    moment: datetime = tx.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def one_at_a_time(tx: Transaction, key: str) -> None:
    """Let transactions that call this with the same key go one after the other, each until it ends."""
    tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))


def notify(tx: Transaction, channel: str, payload: str = "") -> None:
    """Wake listeners of the channel when this transaction commits."""
    tx.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


def _translate(error: DBAPIError) -> Exception:
    state: Any = getattr(error.orig, "sqlstate", None)
    if state in ("40001", "40P01"):
        return Conflict("Two changes of the same record collided.", advice="Try again.")
    if state == "55P03":
        return Conflict("Another change of the same record is still under way.", advice="Try again in a moment.")
    if state is None and isinstance(error.orig, psycopg.DataError):
        # Raised by the driver, for a NUL or half a surrogate pair: whatever the text was for, nothing has it.
        return Invalid("This holds a character that cannot be kept.", advice="Type it again by hand.")
    gone = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return _down() if gone else error


def _down() -> BackendDown:
    return BackendDown(
        "The records cannot be reached, so nothing can be allowed.",
        backend="postgresql",
        advice="Try again in a minute. If it keeps failing, tell the operator: /readyz shows what is missing.",
    )
