"""Splits one embedded PostgreSQL server into two: earlier versions kept the records where guests log in."""

from __future__ import annotations

import json
import os
import shutil

import psycopg
from psycopg import sql

from broker.embedded.children import StartFailed, unprivileged
from broker.embedded.postgres import Postgres

_OF_THE_RECORDS = ("owner", "app")
_ROLES_OF_THE_DATA = "^(gks?_.*|guestkey_(registrar|minter|watch|reaper))$"
_ROLES_OF_THE_RECORDS = "^guestkey_(owner|app)$"


def holds_both(data: Postgres) -> bool:
    """Whether the server of the datasets, which is not running, holds the records too."""
    file = data.state / "passwords.json"
    return file.exists() and set(_OF_THE_RECORDS) <= set(json.loads(file.read_text()))


def copy_cluster(data: Postgres, records: Postgres) -> None:
    """Copy a stopped server's files to be the records' server; done already is fine.

    Raises:
        StartFailed: they cannot be copied.
    """
    if records.state.exists():
        return
    unfinished = records.state.with_name("records-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(data.state, unfinished, ignore=shutil.ignore_patterns("postmaster.pid"))
        account = unprivileged()
        if account:
            for path in [unfinished, *unfinished.rglob("*")]:
                if path.name != "passwords.json":
                    os.chown(path, *account)
    except OSError as error:
        raise StartFailed(f"The records cannot be copied to a server of their own: {error}") from error
    unfinished.rename(records.state)


def take_apart(data: Postgres, records: Postgres) -> None:
    """Drop from each of two equal, running servers what belongs to the other."""
    _drop(records, data.purpose.database, _ROLES_OF_THE_DATA)
    _drop(data, records.purpose.database, _ROLES_OF_THE_RECORDS)
    left = {login: password for login, password in data.passwords.items() if login not in _OF_THE_RECORDS}
    data.passwords = left
    (data.state / "passwords.json").write_text(json.dumps(left))


def _drop(server: Postgres, database: str, roles: str) -> None:
    with psycopg.connect(server.url("postgres", "postgres"), autocommit=True) as session:
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
        rows = session.execute("SELECT rolname FROM pg_roles WHERE rolname ~ %s", (roles,)).fetchall()
        found = [sql.Identifier(name) for (name,) in rows]
        if found:
            names = sql.SQL(", ").join(found)
            # Rights to what all databases share, such as settings, keep a role from being dropped.
            session.execute(sql.SQL("DROP OWNED BY {}").format(names))
            session.execute(sql.SQL("DROP ROLE {}").format(names))
