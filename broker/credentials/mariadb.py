"""Kind `mariadb`: a MariaDB user of its own for each lease, through OpenBao's database engine.

The user sees one view and nothing else; its name carries the lease id (`gk_<tag>_<lease>`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import pymysql
import structlog

from broker.credentials import authority, mariadb_slices
from broker.credentials.base import Bound, Connects, Ending, LeaseToEnd, LeaseToIssue, NotEnded, Seen, Shown, Use
from broker.credentials.database_user import BACKSTOP_SECONDS, DatabaseUser
from broker.credentials.mariadb_binding import MariadbBinding
from broker.credentials.mariadb_slices import Session, connected, silent, view_of
from broker.credentials.names import user_of
from broker.credentials.table_looking import MADE, difference
from broker.errors import BackendDown
from broker.vault import Vault

log = structlog.get_logger(__name__)
_GUEST = re.compile(r"gk_([a-z0-9]{6})_([a-z0-9]+)")
# A killed session is gone once it notices, which takes milliseconds; who reconnects without pause shows up meanwhile.
_GOING_SECONDS = 2.0
_PAUSE_SECONDS = 0.02
# What the server shows of a connection that was killed and has not noticed yet.
_KILLED = "killed"
CONFIRMED = "mariadb: no such user, no connection"
CUT = "mariadb: no such user; its connection is cut, and what it began computes on for nobody"


class MariadbKind(DatabaseUser):
    """See `broker.credentials.base.Kind`."""

    name = "mariadb"
    authority = "ssl_ca"
    connects: Connects | None = Connects("MariaDB server", "columns and rows of a table", asked=True)
    ending = Ending(
        how="The account is locked, its connections are killed, the user is dropped, and MariaDB is asked whether"
        " user and connections are gone.",
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
        """Revoke in OpenBao, then make sure in MariaDB by hand, then ask it: only its answer counts.

        OpenBao being down stops none of that. What it still believes it holds it revokes when the lease runs out.
        """
        self.settle(vault, lease)
        try:
            with connected(vault, str(lease.binding["connection"]), "watch") as session:
                return _taken_away(session, user_of(lease.handle))
        except pymysql.Error as error:
            raise NotEnded(f"MariaDB refused or vanished: {type(error).__name__}") from error

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
                    rows = _guests(session, "")
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


def _taken_away(session: Session, user: str) -> str:
    """End a user of ours; returns what confirms it.

    A connection that is killed has lost its client and begins nothing more. Some functions do not notice for hours.

    Raises:
        NotEnded: the user or a connection that was not killed is still there.
    """
    until = monotonic() + _GOING_SECONDS
    rows, confirmed = _guests(session, user), CONFIRMED
    while rows:
        if monotonic() >= until:
            users = sum(what == "user" for _, what in rows)
            raise NotEnded(f"MariaDB still shows {users} user, {len(rows) - users} connections")
        with session.cursor() as cursor:
            cursor.execute("CALL guestkey_ops.end_guest(%s)", (user,))
        sleep(_PAUSE_SECONDS)
        # Only after a kill of our own: a guest that kills its own statements is shown alike.
        shown = _guests(session, user)
        rows = [row for row in shown if row[1] != _KILLED]
        confirmed = CUT if shown and not rows else CONFIRMED
    return confirmed


def _guests(session: Session, user: str) -> Sequence[tuple[Any, ...]]:
    with session.cursor() as cursor:
        cursor.execute("CALL guestkey_ops.guests(%s)", (user,))
        return cursor.fetchall()
