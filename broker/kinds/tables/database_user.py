"""What the kinds made by OpenBao's database engine share: a user of a database for each lease, named after it."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import structlog

from broker.base.errors import BackendDown
from broker.keystore.vault import ChildToken, Vault, VaultRefused
from broker.kinds import authority
from broker.kinds.base import Kind, keystore_failed, listed_by_each, own_token, refused_as
from broker.kinds.names import policy_of, role_of, user_of
from broker.kinds.tables.binding import TableBinding
from broker.kinds.values import BackendListing, BoundSlice, Issued, LeaseToEnd, LeaseToIssue, NotEnded

log = structlog.get_logger(__name__)
# OpenBao's own end comes so much later than ours.
BACKSTOP_SECONDS = 60
_LEASES = "database/creds"
# Of the broker's own at a database: one makes slices, the other ends guests.
Login = Literal["registrar", "watch"]
# For OpenBao, to end users of a server that lets the broker not in.
_OTHER_WAY_SECONDS = 12
# How long OpenBao lets a user live: a minute until it is activated, and never longer than a day.
LIFETIMES = {"default_ttl": "60s", "max_ttl": "24h"}
# How slices are made now. One made in another way is made again by the round that looks at them.
MADE = 2


class DatabaseUserKind(Kind):
    """A kind whose credential is a user of a database, made, lengthened and revoked through OpenBao."""

    # What people call the server.
    server: ClassVar[str]
    # The setting that names the file of the server's authority.
    authority: ClassVar[str]
    bindings: ClassVar[type[TableBinding]]
    actions = frozenset({"read"})
    needs_child_token = True
    renewable = True
    keeps_leases = True
    inspects_sources = True
    has_fast_form = True

    @abstractmethod
    def relation(self, slice_id: str) -> str:
        """The view a guest reads."""

    @abstractmethod
    def end_users(self, vault: Vault, connection: str, users: Sequence[str]) -> Mapping[str, str | NotEnded]:
        """End users of one server by hand, all at once, and ask; for each by name what was confirmed, or why not.

        Raises:
            NotEnded: the server let us in and refused, or does not go on; OpenBao would wait for it, too.
            BackendDown: the server does not let us in.
        """

    @abstractmethod
    def list_users(self, vault: Vault, connection: str, tag: str) -> Iterable[tuple[str, str, bool]]:
        """Users of ours that one connection shows; see `listed_by_each`. What carries no name is shown with our tag."""

    def place(self, lease: LeaseToIssue) -> dict[str, str]:
        """Where the guest finds the server, and by whose signature it knows it."""
        return authority.carried(lease.place, self.authority)

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Kind.check_binding`."""
        return self.bindings.parse(binding).canonical()

    def difference(
        self, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None, binding: Mapping[str, Any]
    ) -> str:
        """See `Kind.difference`.

        Args:
            was, now: `{table, columns: {name: [which, type, computed]}, definition, reads}`, each part as the database
                identifies it; None where there is no table of that name. `follows` says why a guest could choose its
                rows, `marked` names the functions that decide of them by their owner's word: neither is known of
                slices made by earlier versions.
        """
        named = f"{binding.get('schema')}.{binding.get('table')}"
        if now is None:
            return f"The table {named} no longer exists: it was dropped or renamed."
        if not was:
            return str(now.get("follows", ""))
        return _columns_changed(was, now, named) or _rows_changed(was, now, named)

    def outdated(self, was: Mapping[str, Any] | None) -> bool:
        """See `Kind.outdated`."""
        return was is None or was.get("made") != MADE

    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """End them at their servers. OpenBao is only told afterwards (`settle`), or where a server lets nobody in."""
        by_connection: dict[str, list[LeaseToEnd]] = defaultdict(list)
        for lease in leases:
            by_connection[str(lease.binding["connection"])].append(lease)
        outcomes: dict[str, str | Exception] = {}
        for connection, some in by_connection.items():
            ids = {user_of(lease.handle): lease.id for lease in some}
            try:
                ended = self.end_users(vault, connection, sorted(ids))
                outcomes |= {ids[user]: outcome for user, outcome in ended.items()}
            except NotEnded as error:
                outcomes |= dict.fromkeys(ids.values(), error)
            except BackendDown as error:
                # OpenBao reaches the same server with another login: what it can still end, the next attempt confirms.
                with vault.deadline(_OTHER_WAY_SECONDS):
                    for lease in some:
                        self.settle(vault, lease)
                outcomes |= dict.fromkeys(ids.values(), NotEnded(f"{self.server}: {error.detail}"))
        return outcomes

    def end(self, vault: Vault, lease: LeaseToEnd) -> str:
        """End one and have OpenBao forget it, whatever came of it.

        OpenBao being down or hung stops none of that. What it still believes it holds it revokes as the lease runs out.
        """
        try:
            return super().end(vault, lease)
        finally:
            self.settle(vault, lease)

    def list_credentials(self, vault: Vault, tag: str, bounds: Sequence[BoundSlice]) -> BackendListing:
        """Users of ours, and sessions of users that are gone, at every server the bindings name."""

        def ask(bound: BoundSlice) -> Iterable[tuple[str, str, bool]]:
            return self.list_users(vault, bound.connection, tag)

        return listed_by_each(self.name, tag, bounds, ask, complete=True)

    def policies(self, slice_id: str, action: str) -> list[str]:
        """See `Kind.policies`. Users only read, so that there is one for each slice."""
        return [policy_of(slice_id)]

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Make the user. OpenBao's role gives it a minute; `activate` lengthens that."""
        with refused_as("The key store refused to make the database user.", kind=self.name, lease=lease.id):
            made = vault.database_credential(own_token(token), role_of(lease.slice_id))
        if made.username != user_of(lease.handle):
            raise keystore_failed("The key store made a user of an unexpected name.")
        values = {
            **self.place(lease),
            "username": made.username,
            "password": made.password,
            "relation": self.relation(lease.slice_id),
            "connection": str(lease.binding["connection"]),
            "expires_at": lease.expires_at.isoformat(),
        }
        return Issued(values=values, backend_lease_id=made.lease_id)

    def activate(self, vault: Vault, lease: LeaseToIssue, issued: Issued) -> None:
        """Give the user its whole life. OpenBao's own end comes a minute after ours: a backstop."""
        if issued.backend_lease_id is None:
            raise ValueError("issued without a lease in the key store")
        with refused_as("The key store refused to extend the credential.", lease=lease.id):
            vault.renew_lease(issued.backend_lease_id, lease.lifetime + BACKSTOP_SECONDS)

    def renew(self, vault: Vault, lease: LeaseToEnd, seconds: int) -> None:
        """Lengthen OpenBao's lease, and with it the user; what is granted is checked."""
        if lease.backend_lease_id is None:
            raise keystore_failed("The key store's lease of this user is not known.")
        granted = vault.renew_lease(lease.backend_lease_id, seconds + BACKSTOP_SECONDS)
        if granted < seconds:
            raise keystore_failed("The key store did not lengthen the user as asked.")

    def keystore_leases(self, vault: Vault, slice_ids: frozenset[str]) -> frozenset[str]:
        """Only of roles that have any: what is asked grows with what lives, not with all slices."""
        roles = {f"{role_of(slice_id)}/" for slice_id in slice_ids}
        found: set[str] = set()
        for role in roles.intersection(vault.lease_names(_LEASES)):
            found |= {f"{_LEASES}/{role}{name}" for name in vault.lease_names(f"{_LEASES}/{role.rstrip('/')}")}
        return frozenset(found)

    def settle(self, vault: Vault, lease: LeaseToEnd) -> None:
        """Revoke OpenBao's lease, if it has one; what it cannot end is ended by hand."""
        if not lease.backend_lease_id:
            return
        try:
            vault.revoke_lease(lease.backend_lease_id)
        except (VaultRefused, BackendDown) as error:
            # OpenBao gives up after six attempts.
            log.warning("database.revoke_failed", kind=self.name, error=str(error))


def silent(backend: str, detail: str = "The dataset's database does not answer.") -> BackendDown:
    """The database behind a slice does not answer usefully."""
    return BackendDown(detail, backend=backend, advice="Try again in a minute.")


@contextmanager
def answering(backend: str, errors: type[Exception], event: str, **of: str) -> Iterator[None]:
    """What a server says against what is done inside goes to the log as this event.

    Args:
        errors: those of its driver.

    Raises:
        BackendDown: it refused, or went away meanwhile.
    """
    try:
        yield
    except errors as error:
        log.warning(event, **of, error=type(error).__name__)
        raise silent(backend) from error


def write_role(vault: Vault, slice_id: str, definition: Mapping[str, Any]) -> None:
    """Let users of a slice be made: its database role, and the policy a lease's token needs to read from it."""
    vault.write_role("database", role_of(slice_id), definition)
    path = f"database/creds/{role_of(slice_id)}"
    vault.write_policy(policy_of(slice_id), f'path "{path}" {{ capabilities = ["read"] }}\n')


def delete_role(vault: Vault, slice_id: str) -> None:
    """Take both away; twice is fine."""
    vault.delete_policy(policy_of(slice_id))
    vault.delete_role("database", role_of(slice_id))


def login_url(vault: Vault, connection: str, login: Login, *, scheme: str = "") -> str:
    """The address of the broker's own login at a database, password included.

    That of `watch` is remembered: guests are ended while OpenBao is down.

    Args:
        scheme: what it must begin with, where another kind's connection may have the same name.

    Raises:
        BackendDown: OpenBao does not hold it, does not give it to this identity, or does not answer.
    """
    try:
        url = str(vault.secret(f"connections/{connection}/{login}", remembered=login == "watch")["url"])
        if not url.startswith(scheme):
            raise KeyError(connection)
        return url
    except (VaultRefused, KeyError) as error:
        raise keystore_failed("The login of the dataset's database is not known to the key store.") from error


def _columns_changed(was: Mapping[str, Any], now: Mapping[str, Any], named: str) -> str:
    for name, (which, type_, computed) in was.get("columns", {}).items():
        if name not in now.get("columns", {}):
            return f"The table {named} has no column {name} any more: it was dropped or renamed."
        which_now, type_now, computed_now = now["columns"][name]
        if which_now != which:
            return f"The column {name} of {named} is a different column than before."
        if type_now != type_:
            return f"The column {name} of {named} is of type {type_now} now; it was {type_}."
        if computed_now != computed:
            return f"The column {name} of {named} is computed differently than before."
    return ""


def _rows_changed(was: Mapping[str, Any], now: Mapping[str, Any], named: str) -> str:
    if now.get("table") != was.get("table"):
        return f"{named} is a different table than before, or was created again."
    if now.get("definition") != was.get("definition"):
        return f"The definition of which rows {named} shows has changed."
    if follows := str(now.get("follows", "")):
        return follows
    if was.get("marked", now.get("marked")) != now.get("marked"):
        return f"A function that decides which rows {named} shows was changed."
    if now.get("reads") != was.get("reads"):
        return "The slice's own view is gone, or was changed."
    return ""
