"""Slices in MariaDB: how a binding becomes a view there, and the broker's own logins, which make and watch it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
import structlog
from pymysql.cursors import Cursor

from broker.credentials.database_user import LIFETIMES, lend, unknown_login, withdraw
from broker.credentials.names import short
from broker.credentials.table_binding import RowFilter, TableBinding
from broker.errors import BackendDown, Invalid
from broker.settings import is_loopback
from broker.vault import Vault, VaultRefused

log = structlog.get_logger(__name__)
Session: TypeAlias = "pymysql.Connection[Cursor]"
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5
_NUMBERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "year"})
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"})
_MOMENTS = frozenset({"date", "datetime", "timestamp"})
_READABLE = """
    SELECT column_name, data_type, coalesce(character_set_name, '') FROM information_schema.columns
     WHERE table_schema = %s AND table_name = %s AND find_in_set('select', privileges)
"""


class _Type(NamedTuple):
    """Of a column, as MariaDB names it: its data type and, of texts, the character set."""

    name: str
    letters: str


@dataclass(frozen=True, slots=True)
class MariadbBinding(TableBinding):
    """A table of MariaDB's, where a schema is a database."""

    not_data = re.compile("mysql|sys|information_schema|performance_schema|guestkey_.*")

    def select(self, types: Mapping[str, _Type]) -> tuple[str, list[Any]]:
        """The query behind the slice's view, and the literals the driver puts into it.

        Args:
            types: the type of every column.

        Raises:
            Invalid: a literal is of another type than its column, which MariaDB would compare all the same.
        """
        table = f"{_quoted(self.schema)}.{_quoted(self.table)}"
        query = f"SELECT {', '.join(map(_quoted, self.columns))} FROM {table}"  # noqa: S608  names, all of them quoted
        if not self.rows:
            return query, []
        conditions, literals = zip(*(_condition(row, types[row.column]) for row in self.rows), strict=True)
        return f"{query} WHERE {' AND '.join(conditions)}", [value for some in literals for value in some]


def _quoted(name: str) -> str:
    # Names were let in as letters, digits and _ only.
    return f"`{name}`"


def _condition(row: RowFilter, type_: _Type) -> tuple[str, Sequence[Any]]:
    column = _quoted(row.column)
    if row.operator in ("is_null", "not_null"):
        return f"{column} IS {'NOT ' * (row.operator == 'not_null')}NULL", ()
    values = row.value if isinstance(row.value, tuple) else (row.value,)
    if not all(_comparable(value, type_.name) for value in values):
        raise Invalid(
            f"A row filter compares {row.column}, which is of type {type_.name}, with a literal of another type.",
            field="/binding/rows",
        )
    if type_.name not in _TEXTS:
        return _compared(column, row.operator, "%s", len(values)), values
    # Collations call 'Acme', 'acme' and 'acme ' the same. Bytes tell them apart; an index serves only the former.
    exact = _compared(
        f"CAST(CONVERT({column} USING utf8mb4) AS BINARY)", row.operator, "CAST(%s AS BINARY)", len(values)
    )
    if row.operator not in ("=", "in"):
        return exact, values
    alike = _compared(column, row.operator, f"CONVERT(%s USING {type_.letters})", len(values))
    return f"{alike} AND {exact}", (*values, *values)


def _compared(what: str, operator: str, literal: str, count: int) -> str:
    return f"{what} {operator} ({', '.join([literal] * count)})"


def _comparable(value: object, type_: str) -> bool:
    """Whether MariaDB compares these as what they are: it turns 'x' into 0 beside a number, and text too."""
    if isinstance(value, int | float):
        return type_ in _NUMBERS
    if type_ in _MOMENTS:
        try:
            datetime.fromisoformat(str(value))
        except ValueError:
            return False
        return True
    return type_ in _TEXTS


def view_of(slice_id: str) -> str:
    """The view a guest reads; its name says nothing of dataset or vendor."""
    return f"guestkey_slices.v_{short(slice_id)}"


def register(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """Make a slice real: its view in MariaDB, its database role and policy in OpenBao. Twice is fine.

    Raises:
        Invalid: the table or a column does not exist or may not be read, or a literal is of another type.
        BackendDown: MariaDB or OpenBao does not answer.
    """
    binding = MariadbBinding.parse(raw_binding)
    try:
        with connected(vault, binding.connection, "registrar") as session, session.cursor() as cursor:
            query, literals = binding.select(_types(cursor, binding))
            # Else a guest's own condition could be tried on a hidden row first, and its error would tell of it. What
            # has a LIMIT is filled before anything is asked of it.
            barrier = " LIMIT 18446744073709551615" if binding.rows else ""
            algorithm = "TEMPTABLE" if binding.rows else "MERGE"
            options = f"ALGORITHM = {algorithm} SQL SECURITY DEFINER"
            cursor.execute(f"CREATE OR REPLACE {options} VIEW {view_of(slice_id)} AS {query}{barrier}", literals)
    except pymysql.Error as error:
        log.warning("slice.not_changed", slice=slice_id, error=type(error).__name__)
        raise silent() from error
    make = f"CALL guestkey_ops.make_guest('{{{{name}}}}', '{{{{password}}}}', 'v_{short(slice_id)}')"
    end = "CALL guestkey_ops.end_guest('{{name}}')"
    role = {"db_name": binding.connection, "creation_statements": [make], "revocation_statements": [end]}
    lend(vault, slice_id, {**role, **LIFETIMES})


def unregister(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """Take a slice's policy, database role and view away, once its leases have ended. Twice is fine.

    Raises:
        BackendDown: MariaDB or OpenBao does not answer.
    """
    withdraw(vault, slice_id)
    try:
        with connected(vault, str(raw_binding["connection"]), "registrar") as session, session.cursor() as cursor:
            cursor.execute(f"DROP VIEW IF EXISTS {view_of(slice_id)}")
    except pymysql.Error as error:
        log.warning("slice.not_changed", slice=slice_id, error=type(error).__name__)
        raise silent() from error


def _types(cursor: Cursor, binding: MariadbBinding) -> dict[str, _Type]:
    cursor.execute(_READABLE, (binding.schema, binding.table))
    types = {str(name): _Type(str(type_).lower(), str(letters)) for name, type_, letters in cursor.fetchall()}
    if not types:
        raise Invalid(
            "There is no such table, or the registrar may not read it.",
            field="/binding/table",
            advice=f"GRANT SELECT ON {binding.schema}.{binding.table} TO guestkey_registrar, then try again.",
        )
    missing = {*binding.columns, *(row.column for row in binding.rows)} - types.keys()
    if missing:
        raise Invalid(
            f"The table has no column {', '.join(sorted(missing))}, or the registrar may not read it.",
            field="/binding/columns",
        )
    return types


def connected(vault: Vault, connection_name: str, login: str) -> Session:
    """A session of the login `registrar` or `watch`, autocommitting; its context closes it.

    Raises:
        BackendDown: the database cannot be reached, or its login is not known.
    """
    try:
        url = urlsplit(vault.secret(f"connections/{connection_name}/{login}", remembered=login == "watch")["url"])
        host, ca_file = url.hostname or "", parse_qs(url.query).get("ssl_ca", [None])[0]
        if url.scheme != "mysql":
            raise KeyError(connection_name)
        # On this machine nobody can pose as the server; anywhere else its certificate must be right.
        plain = is_loopback(host) and ca_file is None
        return pymysql.connect(
            host=host,
            port=url.port or 3306,
            user=unquote(url.username or ""),
            password=unquote(url.password or ""),
            ssl=None if plain else ssl.create_default_context(cafile=ca_file),
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_STATEMENT_SECONDS + 1,
            write_timeout=_CONNECT_SECONDS,
            charset="utf8mb4",
            autocommit=True,
            init_command=f"SET SESSION max_statement_time = {_STATEMENT_SECONDS}, lock_wait_timeout = 3",
        )
    except (VaultRefused, KeyError) as error:
        raise unknown_login() from error
    except (pymysql.Error, OSError, ValueError) as error:
        log.warning("mariadb.unreachable", connection=connection_name, login=login, error=type(error).__name__)
        raise silent() from error


def silent() -> BackendDown:
    """The database behind a slice does not answer usefully."""
    return BackendDown("The dataset's database does not answer.", backend="mariadb", advice="Try again in a minute.")
