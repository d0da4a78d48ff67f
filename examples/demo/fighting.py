"""The demo's guest who fights: she locks what ending her changes, and loses all the same."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import sql

from .story import Story, data
from .user import User

# What the kind declares; the command line takes its own time besides.
_DECLARED_SECONDS = 5.0


def fight_ending(story: Story, ada: User, olga: User, dataset: str) -> None:
    """A session that locks its own user's row, is ended in time, and keeps nobody else waiting."""
    story.chapter("Fighting")
    handed = data(ada.run("get", dataset, "--kind", "postgres", "--json"))
    lease_id, credential = handed["lease"]["id"], handed["credential"]
    with connect(credential) as session:
        forbidden = "SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 2000000) i"
        said, denied = refused(lambda: session.execute(forbidden), "permission denied for function")
        story.step("Ada tries to fill the server's lock table", said, denied)
        session.execute("SET statement_timeout = 0")
        session.execute("BEGIN")
        session.execute(sql.SQL("ALTER ROLE {} PASSWORD 'x'").format(sql.Identifier(credential["username"])))
        row = session.execute("SELECT pg_backend_pid() > 0").fetchone()
        story.step("she locks her user's own row, leaves that open and reads on", "BEGIN; ALTER ROLE …", row == (True,))
        began = time.monotonic()
        revoked = olga.run("lease", "revoke", lease_id)
        took = time.monotonic() - began
        story.ran(f"Olga revokes her lease: confirmed after {took:.1f} s", revoked, 0, "the backend confirmed it")
        story.step("the session that fought", *refused(lambda: session.execute("SELECT 1"), "terminating|closed"))
    story.step("signing in to PostgreSQL again", *refused(lambda: connect(credential), "authentication failed"))
    again = data(ada.run("get", dataset, "--kind", "postgres", "--json"))
    state = str(again["lease"]["state"])
    story.step(
        "nobody was kept waiting: the next credential", state, state == "active" and took < 4 * _DECLARED_SECONDS
    )
    ada.run("lease", "revoke", again["lease"]["id"])


def connect(credential: Mapping[str, str]) -> psycopg.Connection[Any]:
    """Log in by hand with a credential."""
    return psycopg.connect(
        host=credential["host"],
        port=credential["port"],
        dbname=credential["dbname"],
        user=credential["username"],
        password=credential["password"],
        autocommit=True,
        connect_timeout=5,
    )


def refused(act: Callable[[], object], pattern: str) -> tuple[str, bool]:
    """Do something PostgreSQL should refuse; what it said, and whether that is the refusal expected."""
    try:
        act()
    except psycopg.Error as error:
        return str(error), re.search(pattern, str(error)) is not None
    return "it was allowed", False
