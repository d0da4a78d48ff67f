"""Sessions of the broker's own logins on datasets' databases, and how its things are named there."""

from __future__ import annotations

from typing import Any

import psycopg
import structlog

from broker.credentials.database_user import unknown_login
from broker.credentials.names import short
from broker.database import bounded
from broker.errors import BackendDown
from broker.vault import Vault, VaultRefused

log = structlog.get_logger(__name__)
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5
# A server that is frozen, or a network that swallows, must not hold the worker's hands for ever.
_Bounded = bounded(_STATEMENT_SECONDS + 1)


def view_of(slice_id: str) -> str:
    """The view a guest reads; its name says nothing of dataset or vendor, since every user can list names."""
    return f"slices.v_{short(slice_id)}"


def watching(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the watch login on a dataset's database, autocommitting.

    Raises:
        BackendDown: the database cannot be reached, or its login is not known.
    """
    return _connect(vault, f"connections/{connection_name}/watch", remembered=True)


def _connect(vault: Vault, secret: str, *, remembered: bool) -> psycopg.Connection[tuple[Any, ...]]:
    try:
        url = vault.secret(secret, remembered=remembered)["url"]
        return _Bounded.connect(
            url,
            connect_timeout=_CONNECT_SECONDS,
            autocommit=True,
            application_name="guestkey",
            # Times and dates as they are always written: definitions that hold some are compared by their text.
            options=f"-c statement_timeout={_STATEMENT_SECONDS * 1000} -c lock_timeout=3000"
            " -c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres",
            tcp_user_timeout=_CONNECT_SECONDS * 1000,
        )
    except (VaultRefused, KeyError) as error:
        raise unknown_login() from error
    except psycopg.Error as error:
        log.warning("postgres.unreachable", secret=secret, error=type(error).__name__)
        raise silent() from error


def registering(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the registrar login, for the setup identity only."""
    return _connect(vault, f"connections/{connection_name}/registrar", remembered=False)


def silent() -> BackendDown:
    """The database behind a slice does not answer usefully."""
    return BackendDown("The dataset's database does not answer.", backend="postgresql", advice="Try again in a minute.")
