"""Registering slices in PostgreSQL and OpenBao, with the setup identity; what `postgres` issues rests on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import sql

from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import Vault
from broker.kinds.names import short
from broker.kinds.postgres import views
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.sessions import registrar_session_as_server_writes, silent
from broker.kinds.postgres.user_statements import role_definition
from broker.kinds.tables.database_user import delete_role, write_role

log = structlog.get_logger(__name__)
Session = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")
_PROBE = "gks_probe"
# As many may be registering or unregistering at the same moment.
_OTHERS = 8
_TEMP_MEGABYTES_UNKNOWN = 64 * 1024

# Literals are read beforehand: this is for what only PostgreSQL knows, such as a year that its dates do not reach.
_MISMATCHES = (psycopg.errors.DataError, psycopg.errors.UndefinedFunction, psycopg.errors.DatatypeMismatch)


def register(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> int | None:
    """Make a slice real: its role and view in PostgreSQL, its database role and policy in OpenBao. Twice is fine.

    Returns how many rows PostgreSQL thinks it shows.

    Raises:
        Invalid: the table or a column does not exist, or the registrar may not read it.
        BackendDown: PostgreSQL or OpenBao does not answer.
    """
    binding = PostgresBinding.parse(raw_binding)
    rows = _make_view(vault, slice_id, binding)
    _lend(vault, slice_id, binding)
    return rows


def lend_again(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """Give OpenBao today's statements for a slice that was registered earlier; nothing in PostgreSQL changes.

    Users that live are ended by them, too: OpenBao reads a role's statements when it ends a lease.

    Raises:
        BackendDown: OpenBao does not answer.
    """
    binding = PostgresBinding.parse(raw_binding)
    try:
        _lend(vault, slice_id, binding)
    except (BackendDown, Invalid):
        # How guests are ended must not wait for a database that is away; what they may spill is bounded loosely then.
        write_role(
            vault, slice_id, role_definition(binding.connection, f"gks_{short(slice_id)}", _TEMP_MEGABYTES_UNKNOWN)
        )


def _lend(vault: Vault, slice_id: str, binding: PostgresBinding) -> None:
    temp_megabytes = _as_registrar(
        vault, binding.connection, slice_id, lambda connection: views.temp_megabytes(connection, binding)
    )
    write_role(vault, slice_id, role_definition(binding.connection, f"gks_{short(slice_id)}", temp_megabytes))


def unregister(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """Take a slice's policy, database role, view and role away. Twice is fine.

    Its leases must have ended before: OpenBao ends them by the statements of the database role.

    Raises:
        BackendDown: PostgreSQL or OpenBao does not answer.
    """
    binding = PostgresBinding.parse(raw_binding)
    delete_role(vault, slice_id)
    group_name = f"gks_{short(slice_id)}"

    def drop(connection: Session) -> None:
        views.drop(connection, slice_id)
        _drop_group(connection, group_name)

    _as_registrar(vault, binding.connection, slice_id, drop)


@contextmanager
def probe_group(vault: Vault, connection_name: str) -> Iterator[str]:
    """A group like a slice's that sees nothing, for as long as the block runs. Yields its name.

    Raises:
        BackendDown: PostgreSQL does not answer, or does not let the registrar do what registering needs.
    """
    _as_registrar(vault, connection_name, "probe", lambda connection: _make_group(connection, _PROBE))
    try:
        yield _PROBE
    finally:
        _as_registrar(vault, connection_name, "probe", lambda connection: _drop_group(connection, _PROBE))


def _as_registrar(vault: Vault, connection_name: str, slice_id: str, work: Callable[[Session], T]) -> T:
    """One transaction of the registrar; what PostgreSQL says against it becomes an error of ours."""
    try:
        with registrar_session_as_server_writes(vault, connection_name) as connection:
            return _despite_others(connection, work)
    except _MISMATCHES as error:
        raise Invalid(
            "A row filter compares a column with a literal of another type.", field="/binding/rows"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        # Waiting does not mend it; only the administrator of that database does.
        reason = error.diag.message_primary or "a right is missing"
        raise Invalid(
            f"The database refuses the registrar: {reason}.",
            field="/binding/table",
            advice="The operator runs `guestkey connect-backend postgres --check`: it prints what to grant.",
        ) from error
    except psycopg.Error as error:
        # Another worker at the same slice, or a database that went away: the next round finds out.
        log.warning("slice.not_changed", slice=slice_id, error=type(error).__name__)
        raise silent() from error


def _despite_others(connection: Session, work: Callable[[Session], T]) -> T:
    """Run the transaction again where another one changed the rights of the same schema or database meanwhile.

    PostgreSQL makes neither wait for such a row of its catalogue: who comes second is refused once the first is done.
    """
    for _ in range(_OTHERS):
        try:
            with connection.transaction():
                return work(connection)
        except psycopg.errors.InternalError_ as error:
            log.info("slice.changed_beside_another", error=str(error))
    with connection.transaction():
        return work(connection)


def _make_view(vault: Vault, slice_id: str, binding: PostgresBinding) -> int | None:
    group_name = f"gks_{short(slice_id)}"

    def make(connection: Session) -> int | None:
        _make_group(connection, group_name)
        return views.make(connection, slice_id, binding, sql.Identifier(group_name))

    return _as_registrar(vault, binding.connection, slice_id, make)


def _make_group(connection: Session, group_name: str) -> None:
    group = sql.Identifier(group_name)
    if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (group_name,)).fetchone():
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(group))
    database = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA slices TO {}").format(group))
    connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, group))
    lent = sql.SQL("GRANT {} TO guestkey_minter WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    connection.execute(lent.format(group))


def _drop_group(connection: Session, group_name: str) -> None:
    group = sql.Identifier(group_name)
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (group_name,)).fetchone():
        # Who made a role may administer it, but owns nothing of it until it says so.
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE").format(group))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(group))
        connection.execute(sql.SQL("DROP ROLE {}").format(group))
