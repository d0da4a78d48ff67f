"""Kind `mariadb`: a MariaDB user of its own for each lease, through OpenBao's database engine.

The user sees one view and nothing else; its name carries the lease id (`gk_<tag>_<lease>`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pymysql
import structlog

from broker.keystore.vault import Vault
from broker.kinds import authority
from broker.kinds.mariadb import slices as mariadb_slices
from broker.kinds.mariadb.binding import MariadbBinding
from broker.kinds.mariadb.ending import drop_users, guests, kill
from broker.kinds.mariadb.slices import Session, answering, connected, view_of
from broker.kinds.names import user_of
from broker.kinds.tables.database_user import BACKSTOP_SECONDS, DatabaseUserKind
from broker.kinds.values import BoundSlice, Connects, Ending, LeaseToEnd, LeaseToIssue, NotEnded, Use

log = structlog.get_logger(__name__)
_GUEST = re.compile(r"gk_([a-z0-9]{6})_([a-z0-9]+)")
# Within what is declared: one statement that waits for a full disk, and what was asked before it.
_STATEMENT_SECONDS = 2


class MariadbKind(DatabaseUserKind):
    """See `broker.kinds.base.Kind`."""

    name = "mariadb"
    position = 20
    server = "MariaDB"
    authority = "ssl_ca"
    bindings = MariadbBinding
    connects = Connects("MariaDB server", "columns and rows of a table", asked=True)
    ending = Ending(
        how="Connections are killed, the account is locked, connections are killed again, the user is dropped,"
        " and MariaDB confirms that user and connections are gone.",
        new_sessions=5,
        open_sessions=5,
        worst_case=BACKSTOP_SECONDS,
    )
    use = Use(
        about="A user and password of MariaDB, for its command line and for programs that use MySQL's protocol.",
        secrets=frozenset({"password"}),
        command="guestkey connect {dataset} --slice {slice}",
        command_says="Gets a new credential, opens mariadb, and ends the credential when mariadb exits."
        " Nothing secret is shown.",
    )

    def place(self, lease: LeaseToIssue) -> dict[str, str]:
        """See `DatabaseUserKind.place`. Public authorities MariaDB's clients take from the system."""
        found = super().place(lease)
        if authority.is_public(found.get("ssl_ca")):
            del found["ssl_ca"]
        return found

    def relation(self, slice_id: str) -> str:
        """See `DatabaseUserKind.relation`."""
        return view_of(slice_id)

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """MariaDB's own command line, which asks for the password itself."""
        places = {"host": "host", "port": "port", "username": "user", "ssl_ca": "ssl-ca"}
        says = ""
        if authority.NAME in values:
            values = {**values, "ssl_ca": authority.FILE}
            says = f"First save the value ca_pem as {authority.FILE}, and run this in the same folder. "
        options = [f"--{option}={values[value]}" for value, option in places.items() if value in values]
        verified = ["--ssl-verify-server-cert"] if values.get("ssl", "verify") == "verify" else []
        command = " ".join(["mariadb", *options, *verified, "--protocol=tcp", "--password"])
        return f"{says}When mariadb asks for the password, paste it. You can read {values['relation']}.", command

    def register(self, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        """Make the slice's view, and OpenBao's role and policy for it."""
        mariadb_slices.register(setup, slice_id, bound.binding)
        return None

    def unregister(self, setup: Vault, slice_id: str, bound: BoundSlice) -> None:
        """See `Kind.unregister`."""
        mariadb_slices.unregister(setup, slice_id, bound.binding)

    def inspect_sources(
        self, setup: Vault, connection: str, slices: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Mapping[str, Any] | None]:
        """See `Kind.inspect_sources`."""
        return mariadb_slices.look(setup, connection, slices)

    def end_users(self, vault: Vault, connection: str, users: Sequence[str]) -> Mapping[str, str | NotEnded]:
        """See `DatabaseUserKind.end_users`."""
        try:
            return drop_users(_at(vault, connection), users)
        except pymysql.Error as error:
            raise NotEnded(f"MariaDB refused or vanished: {type(error).__name__}") from error

    def end_sessions(self, vault: Vault, connection: str, handles: Sequence[str]) -> int:
        """See `Kind.end_sessions`."""
        with answering("mariadb.sessions_not_ended", connection=connection), _at(vault, connection)() as session:
            kill(session, [user_of(handle) for handle in handles])
        return len(handles)

    def by_hand(self, lease: LeaseToEnd) -> str:
        """See `Kind.by_hand`."""
        return f"CALL guestkey_ops.end_guest('{user_of(lease.handle)}');"

    def list_users(self, vault: Vault, connection: str, tag: str) -> Iterable[tuple[str, str, bool]]:
        """Users, and connections of users that are gone."""
        failed = answering("mariadb.users_not_listed", connection=connection)
        with failed, connected(vault, connection, "watch") as session:
            rows = guests(session, "")
        return [(guest[1], guest[2], False) for guest in (_GUEST.fullmatch(user) for user, _ in rows) if guest]


def _at(vault: Vault, connection: str) -> Callable[[], Session]:
    """What opens sessions of the watch login that wait for less than is declared."""
    return partial(connected, vault, connection, "watch", statement_seconds=_STATEMENT_SECONDS)


KIND = MariadbKind()
