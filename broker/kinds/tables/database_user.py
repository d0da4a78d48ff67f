"""What the kinds made by OpenBao's database engine share: a user of a database for each lease, named after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from broker.base.errors import BackendDown
from broker.keystore.vault import ChildToken, Vault, VaultRefused
from broker.kinds import authority
from broker.kinds.base import BindingField, Connects, Issued, LeaseToEnd, LeaseToIssue, Proof
from broker.kinds.names import policy_of, role_of, user_of

log = structlog.get_logger(__name__)
# OpenBao's own end comes so much later than ours.
BACKSTOP_SECONDS = 60
_LEASES = "database/creds"
# How long OpenBao lets a user live: a minute until it is activated, and never longer than a day.
LIFETIMES = {"default_ttl": "60s", "max_ttl": "24h"}


class DatabaseUser(ABC):
    """Issuing, lengthening and revoking through OpenBao; see `broker.kinds.base.Kind`."""

    name: str
    # The setting that names the file of the server's authority.
    authority: str
    actions = frozenset({"read"})
    at_backend = True
    needs_child_token = True
    renewable = True
    proof: Proof | None = None
    connects: Connects | None
    binding_fields: tuple[BindingField, ...] | None = None

    def place(self, lease: LeaseToIssue) -> dict[str, str]:
        """Where the guest finds the server, and by whose signature it knows it."""
        return authority.carried(lease.place, self.authority)

    @abstractmethod
    def relation(self, slice_id: str) -> str:
        """The view a guest reads."""

    @abstractmethod
    def end_at(self, vault: Vault, connection: str, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """End leases of one connection by hand, all at once, and ask; for each by id what was confirmed, or why not."""

    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """See `EndsTogether.end_many`. OpenBao is only told afterwards (`settle`)."""
        by_connection: dict[str, list[LeaseToEnd]] = defaultdict(list)
        for lease in leases:
            by_connection[str(lease.binding["connection"])].append(lease)
        outcomes: dict[str, str | Exception] = {}
        for name, some in by_connection.items():
            outcomes |= self.end_at(vault, name, some)
        return outcomes

    def check_proof(self, text: str) -> str:
        """Never asked: nothing is brought."""
        raise ValueError("users of a database take no proof")

    def policies(self, slice_id: str, action: str) -> list[str]:
        """See `Kind.policies`."""
        return [policy_of(slice_id)]

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Make the user. OpenBao's role gives it a minute; `activate` lengthens that."""
        if token is None:
            raise ValueError("a user of a database needs a child token")
        try:
            made = vault.database_credential(token, role_of(lease.slice_id))
        except VaultRefused as error:
            log.warning("database.issue_refused", kind=self.name, lease=lease.id, error=str(error))
            raise _down("The key store refused to make the database user.") from error
        if made.username != user_of(lease.handle):
            raise _down("The key store made a user of an unexpected name.")
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
        try:
            vault.renew_lease(issued.backend_lease_id, lease.lifetime + BACKSTOP_SECONDS)
        except VaultRefused as error:
            raise _down("The key store refused to lengthen the credential.") from error

    def renew(self, vault: Vault, lease: LeaseToEnd, seconds: int) -> None:
        """Lengthen OpenBao's lease, and with it the user; what is granted is checked."""
        if lease.backend_lease_id is None:
            raise _down("The key store's lease of this user is not known.")
        granted = vault.renew_lease(lease.backend_lease_id, seconds + BACKSTOP_SECONDS)
        if granted < seconds:
            raise _down("The key store did not lengthen the user as asked.")

    def kept(self, vault: Vault, slice_ids: frozenset[str]) -> frozenset[str]:
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


def lend(vault: Vault, slice_id: str, definition: Mapping[str, Any]) -> None:
    """Let users of a slice be made: its database role, and the policy a lease's token needs to read from it."""
    vault.write_database_role(role_of(slice_id), definition)
    path = f"database/creds/{role_of(slice_id)}"
    vault.write_policy(policy_of(slice_id), f'path "{path}" {{ capabilities = ["read"] }}\n')


def withdraw(vault: Vault, slice_id: str) -> None:
    """Take both away; twice is fine."""
    vault.delete_policy(policy_of(slice_id))
    vault.delete_database_role(role_of(slice_id))


def unknown_login() -> BackendDown:
    """OpenBao does not hold the broker's own login at a slice's database, or does not give it to this identity."""
    return _down("The login of the dataset's database is not known to the key store.")


def _down(detail: str) -> BackendDown:
    return BackendDown(detail, backend="openbao", advice="Try again in a minute; the operator finds more in the log.")
