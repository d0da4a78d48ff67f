"""Kind `postgres`: a PostgreSQL user of its own for each lease, through OpenBao's database engine.

The user sees one security-barrier view and nothing else; its name carries the lease id (`gk_<tag>_<lease>`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import structlog

from broker.credentials.base import Ending, Issued, LeaseToEnd, LeaseToIssue, NotEnded, Shown, Use
from broker.credentials.postgres_binding import PostgresBinding
from broker.database import bounded
from broker.errors import BackendDown
from broker.vault import ChildToken, Vault, VaultRefused

log = structlog.get_logger(__name__)
_SLICE_ID = re.compile(r"sl_[a-z0-9]{1,40}")
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5
UNACTIVATED_SECONDS = 60
# A server that is frozen, or a network that swallows, must not hold the worker's hands for ever.
_Bounded = bounded(_STATEMENT_SECONDS + 1)
_GUESTS = (
    "SELECT split_part(rolname, '_', 2), substr(rolname, 11),"
    " has_database_privilege(oid, current_database(), 'CONNECT') FROM pg_roles WHERE rolname ~ '^gk_[a-z0-9]{6}_'"
)
# OpenBao's own end comes so much later than ours.
BACKSTOP_SECONDS = 60


def short(slice_id: str) -> str:
    """The part of a slice's id that names it in backends.

    Raises:
        ValueError: it could widen a policy or a statement.
    """
    if _SLICE_ID.fullmatch(slice_id) is None:
        raise ValueError(f"unsafe slice id: {slice_id!r}")
    return slice_id.removeprefix("sl_")


def role_of(slice_id: str) -> str:
    """The database role in OpenBao that makes users of this slice."""
    return f"gk-{short(slice_id)}"


def policy_of(slice_id: str) -> str:
    """The OpenBao policy that lets a child token read credentials of this slice, and nothing else."""
    return f"guestkey-lease-gk-{short(slice_id)}"


def view_of(slice_id: str) -> str:
    """The view a guest reads; its name says nothing of dataset or vendor, since every user can list names."""
    return f"slices.v_{short(slice_id)}"


def user_of(handle: str) -> str:
    """The PostgreSQL user name of a lease's handle, as OpenBao's username template makes it."""
    return "gk_" + handle.replace("-", "_")


class PostgresKind:
    """See `broker.credentials.base.Kind`."""

    name = "postgres"
    actions = frozenset({"read"})
    needs_child_token = True
    renewable = True
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

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Kind.check_binding`."""
        return PostgresBinding.parse(binding).canonical()

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """psql, which asks for the password itself."""
        places = {"host": "host", "port": "port", "dbname": "dbname", "username": "user", "sslmode": "sslmode"}
        known = {"sslmode": "verify-full", **values}
        place = " ".join(f"{name}={known[value]}" for value, name in places.items() if value in known)
        return f"psql asks for the password: paste it. You can read {values['relation']}.", f'psql "{place}"'

    def policies(self, slice_id: str) -> list[str]:
        """See `Kind.policies`."""
        return [policy_of(slice_id)]

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Make the user. OpenBao's role gives it a minute; `activate` lengthens that."""
        if token is None:
            raise ValueError("the postgres kind needs a child token")
        try:
            made = vault.database_credential(token, role_of(lease.slice_id))
        except VaultRefused as error:
            log.warning("postgres.issue_refused", lease=lease.id, error=str(error))
            raise _down("The key store refused to make the database user.") from error
        if made.username != user_of(lease.handle):
            raise _down("The key store made a user of an unexpected name.")
        values = {
            **lease.place,
            "username": made.username,
            "password": made.password,
            "relation": view_of(lease.slice_id),
            "connection": str(lease.binding["connection"]),
            "expires_at": lease.expires_at.isoformat(),
        }
        return Issued(values=values, backend_lease_id=made.lease_id)

    def activate(self, vault: Vault, lease: LeaseToIssue, issued: Issued) -> None:
        """Give the user its whole life. OpenBao's own end comes a minute after ours: a backstop."""
        if issued.backend_lease_id is None:
            raise ValueError("issued without a lease in the key store")
        try:
            vault.renew_lease(issued.backend_lease_id, lease.lifetime + BACKSTOP_SECONDS)
        except VaultRefused as error:
            raise _down("The key store refused to lengthen the credential.") from error

    def renew(self, vault: Vault, lease: LeaseToEnd, seconds: int) -> None:
        """Lengthen OpenBao's lease, which lengthens the user's VALID UNTIL; what is granted is checked."""
        if lease.backend_lease_id is None:
            raise _down("The key store's lease of this user is not known.")
        granted = vault.renew_lease(lease.backend_lease_id, seconds + BACKSTOP_SECONDS)
        if granted < seconds:
            raise _down("The key store did not lengthen the user as asked.")

    def end(self, vault: Vault, lease: LeaseToEnd) -> str:
        """Revoke in OpenBao, then make sure in PostgreSQL by hand, then ask it: only its answer counts.

        OpenBao being down stops none of that. What it still believes it holds it revokes when the lease runs out.
        """
        if lease.backend_lease_id:
            self._revoke(vault, lease.backend_lease_id)
        try:
            remains = remove_user(vault, str(lease.binding["connection"]), user_of(lease.handle))
        except psycopg.Error as error:
            raise NotEnded(f"PostgreSQL refused or vanished: {type(error).__name__}") from error
        if remains:
            raise NotEnded(f"PostgreSQL still shows {remains}")
        return "postgresql: no such role, no session"

    def by_hand(self, lease: LeaseToEnd) -> str:
        """See `Kind.by_hand`."""
        user = user_of(lease.handle)
        return (
            f"SELECT guestkey_ops.close_door('{user}'); SELECT guestkey_ops.end_sessions('{user}');"
            f" SELECT guestkey_ops.drop_user('{user}');"
        )

    def shown(self, vault: Vault, tag: str, bindings: Sequence[Mapping[str, Any]]) -> Shown:
        """Users of ours on every connection the bindings name."""
        found: dict[str, Mapping[str, Any]] = {}
        asked, unasked, others = set[str](), dict[str, str](), set[str]()
        for name, binding in sorted({str(binding["connection"]): binding for binding in bindings}.items()):
            try:
                with watching(vault, name) as connection:
                    rows = connection.execute(_GUESTS).fetchall()
            except (BackendDown, psycopg.Error) as error:
                log.warning("postgres.not_listed", connection=name, error=type(error).__name__)
                unasked[name] = error.detail if isinstance(error, BackendDown) else silent().detail
                continue
            asked.add(name)
            for user_tag, lease_id, at_home in rows:
                if user_tag != tag:
                    others.add(user_tag)
                # Databases of one cluster show the same users; what a user owns can be dropped only where it lives.
                elif at_home or f"{tag}-{lease_id}" not in found:
                    found[f"{tag}-{lease_id}"] = binding
        return Shown(found, frozenset(asked), unasked, frozenset(others))

    def _revoke(self, vault: Vault, lease_id: str) -> None:
        try:
            vault.revoke_lease(lease_id)
        except (VaultRefused, BackendDown) as error:
            # OpenBao gives up after six attempts; what it could not do is done by hand below.
            log.warning("postgres.revoke_failed", error=str(error))


def remove_user(vault: Vault, connection_name: str, user: str) -> str:
    """Take a user of ours away by hand; returns what PostgreSQL shows of it afterwards, empty if nothing.

    Raises:
        BackendDown: the database cannot be reached.
        psycopg.Error: it refuses, or goes away meanwhile.
    """
    with watching(vault, connection_name) as connection:
        if _remains(connection, user):
            # Three statements, three commits: the door must be closed before sessions are ended.
            connection.execute("SELECT guestkey_ops.close_door(%s)", (user,))
            connection.execute("SELECT guestkey_ops.end_sessions(%s)", (user,))
            connection.execute("SELECT guestkey_ops.drop_user(%s)", (user,))
        return _remains(connection, user)


def watching(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the watch login on a dataset's database, autocommitting.

    Raises:
        BackendDown: the database cannot be reached, or its login is not known.
    """
    return _connect(vault, f"connections/{connection_name}/watch", remembered=True)


def _connect(vault: Vault, secret: str, *, remembered: bool) -> psycopg.Connection[tuple[Any, ...]]:
    try:
        url = vault.secret(secret, remembered=remembered)["url"]
        return _Bounded.connect(
            url,
            connect_timeout=_CONNECT_SECONDS,
            autocommit=True,
            application_name="guestkey",
            options=f"-c statement_timeout={_STATEMENT_SECONDS * 1000} -c lock_timeout=3000",
            tcp_user_timeout=_CONNECT_SECONDS * 1000,
        )
    except (VaultRefused, KeyError) as error:
        raise _down("The login of the dataset's database is not known to the key store.") from error
    except psycopg.Error as error:
        log.warning("postgres.unreachable", secret=secret, error=type(error).__name__)
        raise silent() from error


def registering(vault: Vault, connection_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of the registrar login, for the setup identity only."""
    return _connect(vault, f"connections/{connection_name}/registrar", remembered=False)


def _remains(connection: psycopg.Connection[tuple[Any, ...]], user: str) -> str:
    # By system id: after DROP ROLE the user name of a surviving session reads NULL.
    row = connection.execute(
        "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = %(user)s),"
        " (SELECT count(*) FROM pg_stat_activity WHERE usename = %(user)s"
        "   OR (usesysid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = usesysid)))",
        {"user": user},
    ).fetchone()
    roles, sessions = row if row else (1, 1)
    return f"{roles} role, {sessions} sessions" if roles or sessions else ""


def silent() -> BackendDown:
    """The database behind a slice does not answer usefully."""
    return BackendDown("The dataset's database does not answer.", backend="postgresql", advice="Try again in a minute.")


def _down(detail: str) -> BackendDown:
    return BackendDown(detail, backend="openbao", advice="Try again in a minute; the operator finds more in the log.")
