"""PostgreSQL through SQLAlchemy: every connection of a pool is made with a live lease, and left before that ends.

Needs `guestkey[sqlalchemy]`.

    engine = guestkey.postgres.engine(client, "trials")
    with engine.connect() as connection: ...
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from guestkey.client import Client
from guestkey.credentials import Credentials
from guestkey.leases import Lease

_LEASE = "guestkey.lease"
# A lease's user may have three connections. One that somebody ended takes its sessions along; what is left of those in
# the pool is noticed by asking first.
_DEFAULTS: dict[str, Any] = {"pool_size": 3, "max_overflow": 0, "pool_pre_ping": True}
_NAMES = {
    "host": "host",
    "port": "port",
    "dbname": "dbname",
    "username": "user",
    "password": "password",
    "sslmode": "sslmode",
    "sslrootcert": "sslrootcert",
}


def engine(
    client: Client,
    dataset: str,
    *,
    slice: str | None = None,
    lifetime: int | None = None,
    **settings: Any,
) -> sqlalchemy.Engine:
    """An engine on a slice of kind `postgres`; nothing is asked for before its first connection.

    Args:
        settings: as `sqlalchemy.create_engine` takes them.
    """
    made = sqlalchemy.create_engine("postgresql+psycopg://", **(_DEFAULTS | settings))
    attach(made, client.credentials(dataset, kind="postgres", slice=slice, lifetime=lifetime))
    return made


def attach(engine: sqlalchemy.Engine, credentials: Credentials) -> None:
    """Let an engine of yours connect with these credentials, whatever its address says.

    A connection raises `guestkey.Denied` where the gate says no by now. What is checked out of the pool is replaced
    first where its lease is about to end; what is at work when a lease ends is ended by the server.
    """

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        # Asked of the broker, too: a password of a lease that was ended says only that it is wrong.
        lease = credentials.current(checked=True)
        parameters.update({name: lease.values[ours] for ours, name in _NAMES.items() if lease.values.get(ours)})
        if record is not None:
            record.info[_LEASE] = lease

    @event.listens_for(engine, "checkout")
    def _checkout(_connection: Any, record: Any, _proxy: Any) -> None:
        lease: Lease | None = record.info.get(_LEASE)
        if lease is not None and credentials.worn(lease):
            raise DisconnectionError("its lease is about to end")


def relation(credentials: Credentials) -> str:
    """What may be read, as `schema.view`.

    Raises:
        guestkey.Error: no credential could be had.
    """
    return credentials.current().values["relation"]
