"""Kind `mariadb`: a MariaDB user of its own for each lease, through OpenBao's database engine.

The user sees one view and nothing else; its name carries the lease id (`gk_<tag>_<lease>`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pymysql
import structlog

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault
from broker.kinds import authority
from broker.kinds.base import Bound, Connects, Ending, LeaseToEnd, LeaseToIssue, NotEnded, Seen, Shown, Use
from broker.kinds.mariadb import slices as mariadb_slices
from broker.kinds.mariadb.binding import MariadbBinding
from broker.kinds.mariadb.ending import guests, kill, take_away
from broker.kinds.mariadb.slices import Session, connected, silent, view_of
from broker.kinds.names import user_of
from broker.kinds.tables.database_user import BACKSTOP_SECONDS, DatabaseUser
from broker.kinds.tables.looking import MADE, difference

log = structlog.get_logger(__name__)
_GUEST = re.compile(r"gk_([a-z0-9]{6})_([a-z0-9]+)")
# Within what is declared: one statement that waits for a full disk, and what was asked before it.
_STATEMENT_SECONDS = 2
_OTHER_WAY_SECONDS = 12


class MariadbKind(DatabaseUser):
    """See `broker.kinds.base.Kind`."""

    name = "mariadb"
    position = 20
    authority = "ssl_ca"
    connects: Connects | None = Connects("MariaDB server", "columns and rows of a table", asked=True)
    ending = Ending(
        how="Connections are killed, the account is locked, connections are killed again, the user is dropped, and"
        " MariaDB is asked whether user and connections are gone.",
        new_sessions=5,
        open_sessions=5,
        worst_case=BACKSTOP_SECONDS,
    )
    use = Use(
        about="A user and password of MariaDB, for its command line and for programs that speak MySQL's protocol.",
        secrets=frozenset({"password"}),
        command="guestkey connect {dataset} --slice {slice}",
        command_says="Gets a credential of its own, opens mariadb, and gives it back when that ends. No secret on the"
        " screen.",
    )

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Kind.check_binding`."""
        return MariadbBinding.parse(binding).canonical()

    def place(self, lease: LeaseToIssue) -> dict[str, str]:
        """See `DatabaseUser.place`. Public authorities MariaDB's clients take from the system."""
        found = super().place(lease)
        if authority.is_public(found.get("ssl_ca")):
            del found["ssl_ca"]
        return found

    def relation(self, slice_id: str) -> str:
        """See `DatabaseUser.relation`."""
        return view_of(slice_id)

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """MariaDB's own command line, which asks for the password itself."""
        places = {"host": "host", "port": "port", "username": "user", "ssl_ca": "ssl-ca"}
        says = ""
        if authority.NAME in values:
            values = {**values, "ssl_ca": authority.FILE}
            says = f"Save the value ca_pem as {authority.FILE} first, and be in its folder. "
        options = [f"--{option}={values[value]}" for value, option in places.items() if value in values]
        verified = ["--ssl-verify-server-cert"] if values.get("ssl", "verify") == "verify" else []
        command = " ".join(["mariadb", *options, *verified, "--protocol=tcp", "--password"])
        return f"{says}mariadb asks for the password: paste it. You can read {values['relation']}.", command

    def register(self, setup: Vault, slice_id: str, bound: Bound) -> int | None:
        """Make the slice's view, and OpenBao's role and policy for it."""
        mariadb_slices.register(setup, slice_id, bound.binding)
        return None

    def unregister(self, setup: Vault, slice_id: str, bound: Bound) -> None:
        """See `Kind.unregister`."""
        mariadb_slices.unregister(setup, slice_id, bound.binding)

    def look(
        self, setup: Vault, connection: str, slices: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Mapping[str, Any] | None]:
        """See `LooksAgain.look`."""
        return mariadb_slices.look(setup, connection, slices)

    def difference(
        self, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None, binding: Mapping[str, Any]
    ) -> str:
        """See `LooksAgain.difference`."""
        return difference(was or now or {}, now, binding)

    def outdated(self, was: Mapping[str, Any] | None) -> bool:
        """See `LooksAgain.outdated`."""
        return was is None or was.get("made") != MADE

    def end(self, vault: Vault, lease: LeaseToEnd) -> str:
        """End it in MariaDB by hand and ask it: only its answer counts. Then revoke in OpenBao, whatever came of it.

        OpenBao being down or hung stops none of that. What it still believes it holds it revokes as the lease runs out.
        """
        user = user_of(lease.handle)
        try:
            said = take_away(_at(vault, str(lease.binding["connection"])), [user])[user]
        except pymysql.Error as error:
            raise NotEnded(f"MariaDB refused or vanished: {type(error).__name__}") from error
        finally:
            # It reaches the same server with another login: what it can still end, the next attempt confirms.
            self.settle(vault, lease)
        if isinstance(said, NotEnded):
            raise said
        return said

    def end_at(self, vault: Vault, connection: str, leases: Sequence[LeaseToEnd]) -> dict[str, str | Exception]:
        """See `DatabaseUser.end_at`."""
        users = {user_of(lease.handle): lease.id for lease in leases}
        try:
            said = take_away(_at(vault, connection), sorted(users))
        except pymysql.Error as error:
            # A server that let us in and does not go on would keep OpenBao waiting, too.
            return {lease.id: NotEnded(f"MariaDB refused or vanished: {type(error).__name__}") for lease in leases}
        except BackendDown as error:
            with vault.deadline(_OTHER_WAY_SECONDS):
                for lease in leases:
                    self.settle(vault, lease)
            return {lease.id: NotEnded(f"MariaDB: {error.detail}") for lease in leases}
        return {users[user]: outcome for user, outcome in said.items()}

    def keep_out(self, vault: Vault, connection: str, handles: Sequence[str]) -> None:
        """See `KeepsOut.keep_out`."""
        try:
            with _at(vault, connection)() as session:
                kill(session, [user_of(handle) for handle in handles])
        except pymysql.Error as error:
            log.warning("mariadb.not_kept_out", connection=connection, error=type(error).__name__)
            raise silent() from error

    def by_hand(self, lease: LeaseToEnd) -> str:
        """See `Kind.by_hand`."""
        return f"CALL guestkey_ops.end_guest('{user_of(lease.handle)}');"

    def shown(self, vault: Vault, tag: str, bounds: Sequence[Bound]) -> Shown:
        """Users of ours, and connections of users that are gone, on every server the bindings name."""
        found: dict[str, Seen] = {}
        asked, unasked, others = set[str](), dict[str, str](), set[str]()
        for name, bound in sorted({bound.connection: bound for bound in bounds}.items()):
            try:
                with connected(vault, name, "watch") as session:
                    rows = guests(session, "")
            except (BackendDown, pymysql.Error) as error:
                log.warning("mariadb.not_listed", connection=name, error=type(error).__name__)
                unasked[name] = error.detail if isinstance(error, BackendDown) else silent().detail
                continue
            asked.add(name)
            for guest in filter(None, (_GUEST.fullmatch(user) for user, _ in rows)):
                user_tag, lease_id = guest.groups()
                if user_tag == tag:
                    found[f"{tag}-{lease_id}"] = Seen(bound)
                else:
                    others.add(user_tag)
        return Shown(found, frozenset(asked), unasked, frozenset(others), complete=True)


def _at(vault: Vault, connection: str) -> Callable[[], Session]:
    """What opens sessions of the watch login that wait for less than is declared."""
    return partial(connected, vault, connection, "watch", statement_seconds=_STATEMENT_SECONDS)


KIND = MariadbKind()
