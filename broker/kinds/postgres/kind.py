"""Kind `postgres`: a PostgreSQL user of its own for each lease, through OpenBao's database engine.

The user sees one security-barrier view and nothing else; its name carries the lease id (`gk_<tag>_<lease>`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import psycopg
import structlog

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault
from broker.kinds import authority
from broker.kinds.base import Bound, Connects, Ending, LeaseToEnd, LeaseToIssue, NotEnded, Seen, Shown, Use
from broker.kinds.names import user_of
from broker.kinds.postgres import looking
from broker.kinds.postgres import slices as postgres_slices
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.door import door_kept_open, keep_door_open
from broker.kinds.postgres.ending import Looked, signal, take_away
from broker.kinds.postgres.limits import end_overlong
from broker.kinds.postgres.sessions import Standing, silent, view_of, watching
from broker.kinds.postgres.users import STATEMENTS
from broker.kinds.tables.database_user import BACKSTOP_SECONDS, DatabaseUser
from broker.kinds.tables.looking import MADE, difference

log = structlog.get_logger(__name__)
_GUESTS = (
    "SELECT split_part(rolname, '_', 2), substr(rolname, 11),"
    " has_database_privilege(oid, current_database(), 'CONNECT') FROM pg_roles WHERE rolname ~ '^gk_[a-z0-9]{6}_'"
)
CONFIRMED = "postgresql: no such role, no session"
_OTHER_WAY_SECONDS = 12
# A server that refuses says so within this; one that is silent is waited for longer.
_AT_ONCE_SECONDS = 1.0
# What was told to end gives back its locks within this.
_GOING_SECONDS = 0.3
# Sessions whose user is gone carry no name of anybody's: together they are shown as one.
NAMELESS = "nameless"


class PostgresKind(DatabaseUser):
    """See `broker.kinds.base.Kind`."""

    name = "postgres"
    position = 10
    authority = "sslrootcert"
    statements = STATEMENTS
    connects: Connects | None = Connects("PostgreSQL database", "columns and rows of a table", asked=True)
    ending = Ending(
        how="Log-in is switched off and committed, open sessions are terminated, the user is dropped, and"
        " PostgreSQL is asked whether user and sessions are gone.",
        new_sessions=5,
        open_sessions=5,
        worst_case=BACKSTOP_SECONDS,
    )
    use = Use(
        about="A user and password of PostgreSQL, for psql and programs.",
        secrets=frozenset({"password"}),
        command="guestkey connect {dataset} --slice {slice}",
        command_says="Gets a credential of its own, opens psql, and gives it back when psql ends. No secret on the"
        " screen.",
    )

    def __init__(self) -> None:
        self.standing = Standing()

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Kind.check_binding`."""
        return PostgresBinding.parse(binding).canonical()

    def place(self, lease: LeaseToIssue) -> dict[str, str]:
        """See `DatabaseUser.place`. libpq needs to be told that the system's authorities do."""
        found = super().place(lease)
        if found.get("sslmode") == "verify-full" and authority.is_public(found.get("sslrootcert")):
            found["sslrootcert"] = authority.SYSTEM
        return found

    def relation(self, slice_id: str) -> str:
        """See `DatabaseUser.relation`."""
        return view_of(slice_id)

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """psql, which asks for the password itself."""
        places = {"host": "host", "port": "port", "dbname": "dbname", "username": "user", "sslmode": "sslmode"}
        known = {"sslmode": "verify-full", **values}
        says = ""
        if authority.NAME in values:
            known["ca"], places["ca"] = authority.FILE, "sslrootcert"
            says = f"Save the value ca_pem as {authority.FILE} first, and be in its folder. "
        elif values.get("sslrootcert") == authority.SYSTEM:
            places["sslrootcert"] = "sslrootcert"
        place = " ".join(f"{name}={known[value]}" for value, name in places.items() if value in known)
        return f"{says}psql asks for the password: paste it. You can read {values['relation']}.", f'psql "{place}"'

    def register(self, setup: Vault, slice_id: str, bound: Bound) -> int | None:
        """Make the slice's view and group, and OpenBao's role and policy for it."""
        return postgres_slices.register(setup, slice_id, bound.binding)

    def lend_again(self, setup: Vault, slice_id: str, bound: Bound) -> None:
        """See `LendsAgain.lend_again`."""
        postgres_slices.lend_again(setup, slice_id, bound.binding)

    def unregister(self, setup: Vault, slice_id: str, bound: Bound) -> None:
        """See `Kind.unregister`."""
        postgres_slices.unregister(setup, slice_id, bound.binding)

    def look(
        self, setup: Vault, connection: str, slices: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Mapping[str, Any] | None]:
        """See `LooksAgain.look`."""
        return looking.look(setup, connection, slices)

    def difference(
        self, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None, binding: Mapping[str, Any]
    ) -> str:
        """See `LooksAgain.difference`. Of one registered before, what its view reads is compared with the names."""
        if was is None and now is not None and not looking.reads_what_it_names(now):
            return "The slice's view reads another table, or other columns, than have these names now."
        return difference(was or now or {}, now, binding)

    def outdated(self, was: Mapping[str, Any] | None) -> bool:
        """See `LooksAgain.outdated`."""
        return was is None or was.get("made") != MADE

    def end(self, vault: Vault, lease: LeaseToEnd) -> str:
        """Revoke in OpenBao, then make sure in PostgreSQL by hand, then ask it: only its answer counts.

        OpenBao being down stops none of that. What it still believes it holds it revokes when the lease runs out.
        """
        self.settle(vault, lease)
        try:
            user, connection = user_of(lease.handle), lease.binding["connection"]
            rest = self._taken_away(vault, connection, [user])[user]
        except psycopg.Error as error:
            raise NotEnded(f"PostgreSQL refused or vanished: {type(error).__name__}") from error
        if rest:
            raise NotEnded(f"PostgreSQL still shows {rest}")
        return CONFIRMED

    def end_at(self, vault: Vault, connection_name: str, leases: Sequence[LeaseToEnd]) -> dict[str, str | Exception]:
        """See `DatabaseUser.end_at`."""
        users = {user_of(lease.handle): lease.id for lease in leases}
        try:
            remains = self._taken_away(vault, connection_name, sorted(users))
        except (BackendDown, psycopg.Error) as error:
            said = error.detail if isinstance(error, BackendDown) else f"refused or vanished: {type(error).__name__}"
            # OpenBao reaches the same server with another login: what it can still end, the next attempt confirms.
            with vault.deadline(_OTHER_WAY_SECONDS):
                for lease in leases:
                    self.settle(vault, lease)
            return {lease.id: NotEnded(f"PostgreSQL: {said}") for lease in leases}
        return {
            users[user]: NotEnded(f"PostgreSQL still shows {rest}") if rest else CONFIRMED
            for user, rest in remains.items()
        }

    def _taken_away(self, vault: Vault, connection_name: str, users: Sequence[str]) -> dict[str, str]:
        self._at_once(vault, connection_name, users)
        began = monotonic()
        with door_kept_open(self.standing, vault, connection_name):
            try:
                return _taken_away(vault, connection_name, users)
            except BackendDown:
                if monotonic() - began > _AT_ONCE_SECONDS:
                    # It hangs: somebody may shut the door again and again. Who is logged in needs none.
                    with self.standing.ready(vault, connection_name) as session:
                        if session is None:
                            raise
                        # Each step of it is committed by itself.
                        session.execute("COMMIT")
                        return take_away(session, users, lambda: watching(vault, connection_name))
            # Refused, not silent: its table of locks may be full. Who is logged in can end whoever filled it.
            with self.standing.session(vault, connection_name) as session:
                signal(session, Looked(session, users), users)
                end_overlong(session)
            sleep(_GOING_SECONDS)
            return _taken_away(vault, connection_name, users)

    def _at_once(self, vault: Vault, connection_name: str, users: Sequence[str]) -> None:
        """What needs no new log-in, which a guest may hold up: their sessions are told to end."""
        try:
            with self.standing.ready(vault, connection_name) as session:
                if session is not None:
                    keep_door_open(session)
                    signal(session, Looked(session, users), users)
        except psycopg.Error as error:
            log.warning("postgres.standing_session_lost", connection=connection_name, error=type(error).__name__)

    def keep_door_open(self, vault: Vault, connection: str) -> Sequence[str]:
        """See `KeepsDoorOpen.keep_door_open`. A database connected before its function came is left as it is."""
        try:
            with self.standing.session(vault, connection) as session:
                return keep_door_open(session)
        except psycopg.Error as error:
            log.warning("postgres.door_not_kept_open", connection=connection, error=type(error).__name__)
            raise silent() from error

    def end_overlong(self, vault: Vault, connection: str) -> Sequence[str]:
        """See `HoldsToLimits.end_overlong`. A database connected before its function came is left as it is."""
        try:
            with self.standing.session(vault, connection) as session:
                return end_overlong(session)
        except psycopg.Error as error:
            log.warning("postgres.limits_not_held", connection=connection, error=type(error).__name__)
            raise silent() from error

    def keep_out(self, vault: Vault, connection: str, handles: Sequence[str]) -> None:
        """See `KeepsOut.keep_out`."""
        users = [user_of(handle) for handle in handles]
        try:
            with self.standing.session(vault, connection) as session:
                signal(session, Looked(session, users), users)
        except psycopg.Error as error:
            log.warning("postgres.not_kept_out", connection=connection, error=type(error).__name__)
            raise silent() from error

    def by_hand(self, lease: LeaseToEnd) -> str:
        """See `Kind.by_hand`."""
        user = user_of(lease.handle)
        return (
            f"SELECT guestkey_ops.revoke_rights('{user}'); SELECT guestkey_ops.close_door('{user}');"
            f" SELECT guestkey_ops.end_sessions('{user}');"
            f" SELECT guestkey_ops.drop_user('{user}');"
        )

    def shown(self, vault: Vault, tag: str, bounds: Sequence[Bound]) -> Shown:
        """Users of ours on every connection the bindings name."""
        found: dict[str, Seen] = {}
        asked, unasked, others = set[str](), dict[str, str](), set[str]()
        for name, bound in sorted({bound.connection: bound for bound in bounds}.items()):
            try:
                with watching(vault, name) as connection:
                    rows = connection.execute(_GUESTS).fetchall()
                    nameless = Looked(connection, []).orphans
            except (BackendDown, psycopg.Error) as error:
                log.warning("postgres.not_listed", connection=name, error=type(error).__name__)
                unasked[name] = error.detail if isinstance(error, BackendDown) else silent().detail
                continue
            asked.add(name)
            if nameless:
                found[f"{tag}-{NAMELESS}"] = Seen(bound)
            for user_tag, lease_id, at_home in rows:
                if user_tag != tag:
                    others.add(user_tag)
                # Databases of one cluster show the same users; what a user owns can be dropped only where it lives.
                elif at_home or f"{tag}-{lease_id}" not in found:
                    found[f"{tag}-{lease_id}"] = Seen(bound)
        return Shown(found, frozenset(asked), unasked, frozenset(others), complete=True)


def remove_user(vault: Vault, connection_name: str, user: str) -> str:
    """Take a user of ours away by hand; returns what PostgreSQL shows of it afterwards, empty if nothing.

    Raises:
        BackendDown: the database cannot be reached.
        psycopg.Error: it refuses, or goes away meanwhile.
    """
    return _taken_away(vault, connection_name, [user])[user]


def _taken_away(vault: Vault, connection_name: str, users: Sequence[str]) -> dict[str, str]:
    with watching(vault, connection_name) as session:
        return take_away(session, users, lambda: watching(vault, connection_name))


KIND = PostgresKind()
