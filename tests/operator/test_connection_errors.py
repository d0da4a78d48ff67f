"""Why a database lets nobody in: told alike whatever language its server speaks."""

from __future__ import annotations

import psycopg
import pytest

from broker.base.errors import BackendDown
from broker.embedded.children import free_port
from broker.kinds.postgres.address import Address, LoginRefused, open_session
from tests.support.servers import Customer, customer, debian


def said(
    server: Customer, *, host: str = "localhost", dbname: str = "warehouse", user: str = "looker", **changes: str
) -> str:
    """What the command tells of a log-in."""
    port = int(changes.get("port", server.port))
    tls = changes.get("tls", "verify-full")
    place = Address("warehouse", host, port, dbname, tls, None if tls == "disable" else server.ca_file)
    with pytest.raises((LoginRefused, BackendDown)) as refused:
        open_session(place, user, changes.get("password", "looks")).close()
    error = refused.value
    return error.detail if isinstance(error, BackendDown) else str(error)


@pytest.mark.parametrize("german", [False, True])
def test_each_postgresql_refusal_is_explained_by_its_code(*, german: bool) -> None:
    with customer(debian(), tls=True, german=german) as server:
        with server.admin() as session:
            session.execute("CREATE ROLE looker LOGIN PASSWORD 'looks'; CREATE ROLE barred PASSWORD 'looks'")
            session.execute("CREATE DATABASE closed")
            session.execute("REVOKE ALL ON DATABASE closed FROM PUBLIC")
            with pytest.raises(psycopg.errors.UndefinedTable) as spoken:
                session.execute("SELECT FROM nonesuch")
            assert ("existiert nicht" in str(spoken.value)) is german
        assert "wrong password" in said(server, password="guess")
        assert "wrong password" in said(server, user="nobody")
        assert "does not let barred in" in said(server, user="barred")
        assert "does not let looker in" in said(server, dbname="closed")
        assert "There is no database nonesuch" in said(server, dbname="nonesuch")
        assert "is not for the name 127.0.0.1" in said(server, host="127.0.0.1")
        assert "does not answer" in said(server, port=str(free_port()))
