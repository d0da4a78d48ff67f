"""Slices in MariaDB: how a binding becomes a view there, and the broker's own logins, which make and watch it.

MariaDB lets no view name a variable, but functions answer as the session has it: `SET timestamp` moves `now()`. Nothing
there holds a session's variables for a view, so a table whose rows follow anything that a guest may set is refused. See
docs/decisions/0166-a-slice-follows-no-setting-of-a-guest.md.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
import structlog
from pymysql.cursors import Cursor

from broker.base.errors import Invalid
from broker.base.settings import is_loopback
from broker.keystore.vault import Vault
from broker.kinds.mariadb.binding import MariadbBinding, MariadbColumn
from broker.kinds.names import short
from broker.kinds.tables import database_user
from broker.kinds.tables.database_user import LIFETIMES, MADE, Login, delete_role, login_url, write_role

log = structlog.get_logger(__name__)
silent = partial(database_user.silent, "mariadb")
answering = partial(database_user.answering, "mariadb", pymysql.Error)
Session: TypeAlias = "pymysql.Connection[Cursor]"
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5
# Ours, whatever the server's is: literals are quoted for it, and what it would only warn of is an error.
_STRICT = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO"
_READABLE = """
    SELECT column_name, data_type, column_type, coalesce(collation_name, '') FROM information_schema.columns
     WHERE table_schema = %s AND table_name = %s AND find_in_set('select', privileges)
"""
_TABLE = """
    SELECT coalesce(create_time, ''), concat(table_type, ' ', coalesce(engine, '')) FROM information_schema.tables
     WHERE table_schema = %s AND table_name = %s
"""
_COLUMNS = """
    SELECT column_name, ordinal_position, column_type, coalesce(generation_expression, '')
      FROM information_schema.columns WHERE table_schema = %s AND table_name = %s AND find_in_set('select', privileges)
"""
_VIEW = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'guestkey_slices' AND table_name = %s"
_ADVICE = (
    "Let the table's owner make a view or a table that states the rows without it, or use a row filter of the slice."
    " docs/connect-mariadb.md says more."
)
# Each by the variable that a guest sets for it, or by what a session has for itself.
_FUNCTIONS: dict[str, str] = {
    **dict.fromkeys(("now", "current_timestamp", "localtime", "localtimestamp", "sysdate"), "timestamp or time_zone"),
    **dict.fromkeys(("curdate", "current_date", "curtime", "current_time", "unix_timestamp"), "timestamp or time_zone"),
    **dict.fromkeys(("utc_date", "utc_time", "utc_timestamp"), "timestamp"),
    "from_unixtime": "time_zone",
    **dict.fromkeys(("date_format", "dayname", "monthname", "format", "to_char"), "lc_time_names"),
    "week": "default_week_format",
    **dict.fromkeys(("group_concat", "json_arrayagg", "json_objectagg"), "group_concat_max_len"),
    "rand": "rand_seed1",
    "last_insert_id": "last_insert_id",
    **dict.fromkeys(("database", "schema"), "the database in use"),
    **dict.fromkeys(("connection_id", "found_rows", "row_count", "lastval", "nextval", "current_role"), "its session"),
    **dict.fromkeys(("get_lock", "release_lock", "is_free_lock", "is_used_lock"), "its locks"),
}
# MariaDB stores a view in one manner: names in backquotes, texts in quotes, keywords in small letters.
_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_NAME = r"`((?:[^`]|``)*)`"
_PART_OF = re.compile(r"\b(?:extract|trim)\([^()`]* from ")
_SOURCE = re.compile(rf"(?:from|join) \(*{_NAME}\.{_NAME}(?!\()")
_STORED = re.compile(rf"{_NAME}\.{_NAME}\s*\(")
_CALL = re.compile(r"\b([a-z_][a-z0-9_]*)\s*\(", re.IGNORECASE)
_TABLE_TYPE = "SELECT table_type FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
_DEFINITION = "SELECT view_definition FROM information_schema.views WHERE table_schema = %s AND table_name = %s"
_COMPUTED = """
    SELECT column_name, generation_expression FROM information_schema.columns
     WHERE table_schema = %s AND table_name = %s AND generation_expression <> ''
"""


def view_of(slice_id: str) -> str:
    """The view a guest reads; its name says nothing of dataset or vendor."""
    return f"guestkey_slices.v_{short(slice_id)}"


def register(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """See `Kind.register`: the view in MariaDB, and the database role and policy in OpenBao."""
    binding = MariadbBinding.parse(raw_binding)
    failed = answering("slice.not_changed", slice=slice_id)
    with failed, connected(vault, binding.connection, "registrar") as session, session.cursor() as cursor:
        types = types_of(cursor, binding)
        if why := _followed(cursor, binding.schema, binding.table):
            raise Invalid(why, field="/binding/table", advice=_ADVICE)
        query, literals = binding.select(types)
        # Else a guest's own condition could be tried on a hidden row first, and its error would tell of it. What
        # has a LIMIT is filled before anything is asked of it.
        apart = not binding.fast and (bool(binding.rows) or _is_view(cursor, binding))
        barrier = " LIMIT 18446744073709551615" if apart else ""
        algorithm = "TEMPTABLE" if apart else "MERGE"
        options = f"ALGORITHM = {algorithm} SQL SECURITY DEFINER"
        with _read_exactly(cursor):
            # MariaDB only warns of a literal that it cannot read, and shows every row.
            cursor.execute(*binding.select(types, of_one_row=True))
        with _read_exactly(cursor):
            cursor.execute(f"CREATE OR REPLACE {options} VIEW {view_of(slice_id)} AS {query}{barrier}", literals)
    make = f"CALL guestkey_ops.make_guest('{{{{name}}}}', '{{{{password}}}}', 'v_{short(slice_id)}')"
    end = "CALL guestkey_ops.end_guest('{{name}}')"
    role = {"db_name": binding.connection, "creation_statements": [make], "revocation_statements": [end]}
    write_role(vault, slice_id, {**role, **LIFETIMES})


@contextmanager
def _read_exactly(cursor: Cursor) -> Iterator[None]:
    """Refuse a statement inside if MariaDB warns of a literal, or takes it for none of its column's type."""
    try:
        yield
        cursor.execute("SHOW WARNINGS")
        warned = [code for level, code, _ in cursor.fetchall() if level != "Note"]
    except pymysql.DataError as error:
        warned = [error.args[0]]
    if warned:
        log.warning("slice.warned_of", codes=warned)
        raise Invalid(
            "MariaDB cannot compare a row filter's literal with its column as it stands.",
            field="/binding/rows",
            advice="Write the literal as MariaDB shows values of that column.",
        )


def unregister(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """See `Kind.unregister`."""
    delete_role(vault, slice_id)
    failed, name = answering("slice.not_changed", slice=slice_id), str(raw_binding["connection"])
    with failed, connected(vault, name, "registrar") as session, session.cursor() as cursor:
        cursor.execute(f"DROP VIEW IF EXISTS {view_of(slice_id)}")


def types_of(cursor: Cursor, binding: MariadbBinding) -> dict[str, MariadbColumn]:
    """The types of the columns of a binding's table that this login may read: see `TableBinding.of_readable`."""
    cursor.execute(_READABLE, (binding.schema, binding.table))
    found = {str(name): MariadbColumn.read(*map(str, of)) for name, *of in cursor.fetchall()}
    return dict(binding.of_readable(found))


def look(
    setup: Vault, connection_name: str, slices: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any] | None]:
    """What lies behind each slice now: see `Kind.inspect_sources`.

    A table is known by the moment its definition was written, the only trace of it that MariaDB shows the registrar:
    another table of that name has another, and so has one that was altered, optimised or renamed and renamed back.
    """
    failed = answering("slices.not_looked_at", connection=connection_name)
    with failed, connected(setup, connection_name, "registrar") as session, session.cursor() as cursor:
        return {
            id_: _look(cursor, MariadbBinding.parse(raw), view_of(id_).partition(".")[2]) for id_, raw in slices.items()
        }


def _look(cursor: Cursor, binding: MariadbBinding, view: str) -> dict[str, Any] | None:
    cursor.execute(_TABLE, (binding.schema, binding.table))
    if (row := cursor.fetchone()) is None:
        return None
    cursor.execute(_COLUMNS, (binding.schema, binding.table))
    columns = {str(name): [int(place), str(type_), str(computed)] for name, place, type_, computed in cursor.fetchall()}
    cursor.execute(_VIEW, (view,))
    return {
        "made": MADE,
        "table": str(row[0]),
        "definition": str(row[1]),
        "columns": {name: columns[name] for name in sorted(binding.named & columns.keys())},
        "reads": [str(name) for (name,) in cursor.fetchall()],
        "follows": _followed(cursor, binding.schema, binding.table),
    }


def _is_view(cursor: Cursor, binding: MariadbBinding) -> bool:
    """Whether what has the table's name is a view, which may hide rows by itself."""
    cursor.execute(_TABLE, (binding.schema, binding.table))
    row = cursor.fetchone()
    return row is None or str(row[1]).startswith("VIEW")


def connected(
    vault: Vault, connection_name: str, login: Login, *, statement_seconds: int = _STATEMENT_SECONDS
) -> Session:
    """A session of the login `registrar` or `watch`, autocommitting; its context closes it.

    Args:
        statement_seconds: how long a statement may take; one second more, and the session is given up.

    Raises:
        BackendDown: the database cannot be reached, or its login is not known.
    """
    url = urlsplit(login_url(vault, connection_name, login, scheme="mysql:"))
    try:
        host, ca_file = url.hostname or "", parse_qs(url.query).get("ssl_ca", [None])[0]
        # On this machine nobody can pose as the server; anywhere else its certificate must be right.
        plain = is_loopback(host) and ca_file is None
        return pymysql.connect(
            host=host,
            port=url.port or 3306,
            user=unquote(url.username or ""),
            password=unquote(url.password or ""),
            ssl=None if plain else ssl.create_default_context(cafile=ca_file),
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=statement_seconds + 1,
            write_timeout=_CONNECT_SECONDS,
            charset="utf8mb4",
            autocommit=True,
            # Times in UTC: a table is known again by when it was made, whatever zone the server is set to later.
            init_command=f"SET SESSION max_statement_time = {statement_seconds}, lock_wait_timeout ="
            f" {max(1, statement_seconds - 2)}, sql_mode = '{_STRICT}', time_zone = '+00:00'",
        )
    except (pymysql.Error, OSError, ValueError) as error:
        log.warning("mariadb.unreachable", connection=connection_name, login=login, error=type(error).__name__)
        raise silent() from error


def _followed(cursor: Cursor, schema: str, table: str) -> str:
    """Why a table cannot be shown to guests, or "": a sentence on the first thing found below it."""
    waiting, seen = [(schema, table)], set[tuple[str, str]]()
    while waiting:
        place = waiting.pop(0)
        if place in seen:
            continue
        seen.add(place)
        named = ".".join(place)
        cursor.execute(_TABLE_TYPE, place)
        if (kind := cursor.fetchone()) is None:
            return _unseen(named)
        if str(kind[0]) != "VIEW":
            cursor.execute(_COMPUTED, place)
            found = (_called(f"The column {name} of {named}", str(how)) for name, how in cursor.fetchall())
            if why := next(filter(None, found), ""):
                return why
            continue
        cursor.execute(_DEFINITION, place)
        row = cursor.fetchone()
        if row is None or not row[0]:
            return _unseen(named)
        definition = _PART_OF.sub("(", _LITERAL.sub("''", str(row[0])))
        if why := _called(f"The view {named}", definition):
            return why
        waiting += [
            (first.replace("``", "`"), second.replace("``", "`")) for first, second in _SOURCE.findall(definition)
        ]
    return ""


def _unseen(named: str) -> str:
    return (
        f"What decides the rows of {named} cannot be seen: GRANT SHOW VIEW ON {named} TO guestkey_registrar@'%', which"
        " lets it read no row."
    )


def _called(where: str, text: str) -> str:
    text = _LITERAL.sub("''", text)
    if stored := _STORED.search(text):
        return f"{where} calls {'.'.join(stored.groups())}, which may answer as a guest has set its session."
    for name in _CALL.findall(re.sub(_NAME, "` `", text)):
        if follows := _FUNCTIONS.get(name.lower()):
            return f"{where} calls {name.lower()}, and a guest can set what that answers ({follows})."
    return ""
