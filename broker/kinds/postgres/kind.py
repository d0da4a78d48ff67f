"""Kind `postgres`: a PostgreSQL user of its own for each lease, through OpenBao's database engine.

The user sees one security-barrier view and nothing else; its name carries the lease id (`gk_<tag>_<lease>`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, ClassVar

import psycopg
import structlog

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault
from broker.kinds import authority
from broker.kinds.names import user_of
from broker.kinds.postgres import catalogue, slices
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.ending import UserSnapshot, drop_users, terminate_sessions
from broker.kinds.postgres.sessions import (
    PersistentSessions,
    Session,
    answering,
    end_login_blockers,
    end_overlong,
    login_blockers_ended,
    silent,
    view_of,
    watch_session,
)
from broker.kinds.postgres.slices import STATEMENTS, look
from broker.kinds.tables.database_user import BACKSTOP_SECONDS, DatabaseUserKind
from broker.kinds.values import BoundSlice, Connects, Ending, FoundTable, LeaseToEnd, LeaseToIssue, NotEnded, Use

log = structlog.get_logger(__name__)
_GUESTS = (
    "SELECT split_part(rolname, '_', 2), substr(rolname, 11),"
    " has_database_privilege(oid, current_database(), 'CONNECT') FROM pg_roles WHERE rolname ~ '^gk_[a-z0-9]{6}_'"
)
CONFIRMED = "postgresql: no such role, no session"
# A server that refuses says so within this; one that is silent is waited for longer.
_AT_ONCE_SECONDS = 1.0
# What was told to end gives back its locks within this.
_GOING_SECONDS = 0.3
# Sessions whose user is gone carry no name of anybody's: together they are shown as one.
NAMELESS = "nameless"


class PostgresKind(DatabaseUserKind):
    """See `broker.kinds.base.Kind`."""

    name = "postgres"
    position = 10
    server = "PostgreSQL"
    authority = "sslrootcert"
    bindings = PostgresBinding
    statements = STATEMENTS
    has_catalogue = True
    has_login_blockers = True
    example: ClassVar[Mapping[str, Any] | None] = {
        "name": "deidentified",
        "binding": {
            "connection": "data",
            "schema": "clinic",
            "table": "patients",
            "columns": ["id", "site", "age"],
            "rows": [["site", "=", "berlin"]],
        },
    }
    connects = Connects("PostgreSQL database", "columns and rows of a table", asked=True)
    ending = Ending(
        how="Log-in is disabled and committed, open sessions are terminated, the user is dropped, and"
        " PostgreSQL confirms that user and sessions are gone.",
        new_sessions=5,
        open_sessions=5,
        worst_case=BACKSTOP_SECONDS,
    )
    use = Use(
        about="A user and password of PostgreSQL, for psql and programs.",
        secrets=frozenset({"password"}),
        command="guestkey connect {dataset} --slice {slice}",
        command_says="Gets a new credential, opens psql, and ends the credential when psql exits. Nothing"
        " secret is shown.",
    )

    def __init__(self) -> None:
        self.persistent = PersistentSessions()

    def place(self, lease: LeaseToIssue) -> dict[str, str]:
        """See `DatabaseUserKind.place`. libpq needs to be told that the system's authorities do."""
        found = super().place(lease)
        if found.get("sslmode") == "verify-full" and authority.is_public(found.get("sslrootcert")):
            found["sslrootcert"] = authority.SYSTEM
        return found

    def relation(self, slice_id: str) -> str:
        """See `DatabaseUserKind.relation`."""
        return view_of(slice_id)

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """psql, which asks for the password itself."""
        places = {"host": "host", "port": "port", "dbname": "dbname", "username": "user", "sslmode": "sslmode"}
        known = {"sslmode": "verify-full", **values}
        says = ""
        if authority.NAME in values:
            known["ca"], places["ca"] = authority.FILE, "sslrootcert"
            says = f"First save the value ca_pem as {authority.FILE}, and run this in the same folder. "
        elif values.get("sslrootcert") == authority.SYSTEM:
            places["sslrootcert"] = "sslrootcert"
        place = " ".join(f"{name}={known[value]}" for value, name in places.items() if value in known)
        return f"{says}When psql asks for the password, paste it. You can read {values['relation']}.", f'psql "{place}"'

    def register(self, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        """Make the slice's view and group, and OpenBao's role and policy for it."""
        return slices.register(setup, slice_id, bound.binding)

    def update_statements(self, setup: Vault, slice_id: str, bound: BoundSlice) -> None:
        """See `Kind.update_statements`."""
        slices.lend_again(setup, slice_id, bound.binding)

    def unregister(self, setup: Vault, slice_id: str, bound: BoundSlice) -> None:
        """See `Kind.unregister`."""
        slices.unregister(setup, slice_id, bound.binding)

    def read_catalogue(self, setup: Vault, connection: str) -> tuple[list[FoundTable], bool]:
        """See `Kind.read_catalogue`."""
        return catalogue.read(setup, connection)

    def with_column_types(self, binding: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """See `Kind.with_column_types`."""
        return self.bindings.parse(binding).with_types(catalogue.types_of(columns)).canonical()

    def inspect_sources(
        self, setup: Vault, connection: str, slices: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Mapping[str, Any] | None]:
        """See `Kind.inspect_sources`."""
        return look(setup, connection, slices)

    def difference(
        self, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None, binding: Mapping[str, Any]
    ) -> str:
        """See `Kind.difference`. Of one registered before, what its view reads is compared with the names."""
        if was is None and now is not None:
            named = sorted(f"{now['table']}.{which}" for which, *_ in now["columns"].values())
            if sorted(now["reads"]) != named:
                return "The slice's view reads another table, or other columns, than have these names now."
        return super().difference(was, now, binding)

    def end_users(self, vault: Vault, connection: str, users: Sequence[str]) -> Mapping[str, str | NotEnded]:
        """See `DatabaseUserKind.end_users`."""
        try:
            remains = self._drop_users(vault, connection, users)
        except psycopg.Error as error:
            raise silent(f"It refused or vanished: {type(error).__name__}.") from error
        return {
            user: NotEnded(f"PostgreSQL still shows {rest}") if rest else CONFIRMED for user, rest in remains.items()
        }

    def _drop_users(self, vault: Vault, connection_name: str, users: Sequence[str]) -> dict[str, str]:
        self._at_once(vault, connection_name, users)
        began = monotonic()
        with login_blockers_ended(self.persistent, vault, connection_name):
            try:
                return drop_users_at(vault, connection_name, users)
            except BackendDown:
                if monotonic() - began > _AT_ONCE_SECONDS:
                    # It hangs: somebody may shut the door again and again. Who is logged in needs none.
                    with self.persistent.ready(vault, connection_name) as session:
                        if session is None:
                            raise
                        # Each step of it is committed by itself.
                        session.execute("COMMIT")
                        return drop_users(session, users, lambda: watch_session(vault, connection_name))
            # Refused, not silent: its table of locks may be full. Who is logged in can end whoever filled it.
            with self.persistent.session(vault, connection_name) as session:
                terminate_sessions(session, UserSnapshot(session, users), users)
                end_overlong(session)
            sleep(_GOING_SECONDS)
            return drop_users_at(vault, connection_name, users)

    def _at_once(self, vault: Vault, connection_name: str, users: Sequence[str]) -> None:
        """What needs no new log-in, which a guest may hold up: their sessions are told to end."""
        try:
            with self.persistent.ready(vault, connection_name) as session:
                if session is not None:
                    end_login_blockers(session)
                    terminate_sessions(session, UserSnapshot(session, users), users)
        except psycopg.Error as error:
            log.warning("postgres.persistent_session_lost", connection=connection_name, error=type(error).__name__)

    def end_login_blockers(self, vault: Vault, connection: str) -> Sequence[str]:
        """See `Kind.end_login_blockers`. A database connected before its function came is left as it is."""
        with self._persistent_session(vault, connection) as session:
            return end_login_blockers(session)

    def end_overlong(self, vault: Vault, connection: str) -> Sequence[str]:
        """See `Kind.end_overlong`. A database connected before its function came is left as it is."""
        with self._persistent_session(vault, connection) as session:
            return end_overlong(session)

    def end_sessions(self, vault: Vault, connection: str, handles: Sequence[str]) -> int:
        """See `Kind.end_sessions`."""
        users = [user_of(handle) for handle in handles]
        with self._persistent_session(vault, connection) as session:
            terminate_sessions(session, UserSnapshot(session, users), users)
        return len(handles)

    @contextmanager
    def _persistent_session(self, vault: Vault, connection: str) -> Iterator[Session]:
        """The session that stays open; what the server says against it becomes an error of ours."""
        failed = answering("postgres.persistent_session_failed", connection=connection)
        with failed, self.persistent.session(vault, connection) as session:
            yield session

    def by_hand(self, lease: LeaseToEnd) -> str:
        """See `Kind.by_hand`."""
        user = user_of(lease.handle)
        return (
            f"SELECT guestkey_ops.revoke_rights('{user}'); SELECT guestkey_ops.close_door('{user}');"
            f" SELECT guestkey_ops.end_sessions('{user}');"
            f" SELECT guestkey_ops.drop_user('{user}');"
        )

    def list_users(self, vault: Vault, connection: str, tag: str) -> Iterable[tuple[str, str, bool]]:
        """Users, and together as one the sessions of users that are gone, which carry no name.

        Databases of one cluster show the same users; what a user owns can be dropped only where it lives.
        """
        with answering("postgres.users_not_listed", connection=connection), watch_session(vault, connection) as session:
            rows = session.execute(_GUESTS).fetchall()
            return [*rows, (tag, NAMELESS, True)] if UserSnapshot(session, []).orphans else rows


def drop_users_at(vault: Vault, connection_name: str, users: Sequence[str]) -> dict[str, str]:
    """Take users of ours away by hand; returns what PostgreSQL shows of each afterwards, empty if nothing.

    Raises:
        BackendDown: the database cannot be reached.
        psycopg.Error: it refuses, or goes away meanwhile.
    """
    with watch_session(vault, connection_name) as session:
        return drop_users(session, users, lambda: watch_session(vault, connection_name))


KIND = PostgresKind()
