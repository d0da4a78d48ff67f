"""How guests reach a PostgreSQL database; how the broker reaches it lies in OpenBao."""

from __future__ import annotations

from pydantic import BaseModel

from broker.kinds.values import ConnectionSetting


class PostgresConnection(BaseModel):
    """A database that holds datasets."""

    host: str
    port: int = 5432
    dbname: str
    sslmode: str = "verify-full"
    sslrootcert: str | None = None


SETTING = ConnectionSetting(PostgresConnection, "Databases that hold datasets, by name.")
