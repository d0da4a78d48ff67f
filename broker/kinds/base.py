"""The kind interface: what issuing, ending and reconciling need of a kind of credential, and nothing more.

Kinds get plain values and a `Vault`; they know neither records nor HTTP. A kind overrides what it has: everything
optional has a default here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import structlog

from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import ChildToken, Vault, VaultRefused
from broker.kinds.names import policy_of
from broker.kinds.values import (
    Authority,
    BackendListing,
    BindingField,
    BoundSlice,
    Connects,
    Ending,
    FoundTable,
    Issued,
    LeaseToEnd,
    LeaseToIssue,
    ListedCredential,
    Proof,
    SignedList,
    Use,
)

log = structlog.get_logger(__name__)
TRY_AGAIN = "Try again in a minute; the operator finds more in the log."
TELL_THE_OPERATOR = "Tell the operator."


class Kind(ABC):
    """One kind of credential.

    What asks a backend raises `BackendDown` where that does not answer usefully in time, and `VaultRefused` where
    OpenBao refuses the identity that asks.

    `position`: its place among the kinds wherever they are listed, lowest first.
    `at_backend`: something is made at a backend that slices are bound to, so a lease is pending first.
    `needs_child_token`: it is made through OpenBao, with a token of its own. `proof`: what its holder must bring.
    `connects`: what its slices lie in; None where that is nowhere.
    `binding_fields`: what a form asks of a slice beside its connection; None where it has pages of its own, or none.
    """

    name: ClassVar[str]
    position: ClassVar[int]
    ending: ClassVar[Ending]
    use: ClassVar[Use]
    actions: ClassVar[frozenset[str]] = frozenset({"read", "write"})
    at_backend: ClassVar[bool] = True
    needs_child_token: ClassVar[bool] = False
    renewable: ClassVar[bool] = False
    proof: ClassVar[Proof | None] = None
    connects: ClassVar[Connects | None] = None
    binding_fields: ClassVar[tuple[BindingField, ...] | None] = None
    # A slice of the kind, as the API's description shows it.
    example: ClassVar[Mapping[str, Any] | None] = None
    # Whether what lies behind tells slices apart by their ids, so whoever sets it up needs them.
    names_slices_by_id: ClassVar[bool] = False
    # Whether the authorization server hands these out.
    is_access_token: ClassVar[bool] = False

    # What a slice is bound to, and making it real there.

    @abstractmethod
    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the binding in canonical form.

        Raises:
            Invalid: anything in it is unknown, malformed, or could widen what the slice shows.
        """

    def register(self, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        """Make a slice real at its backend, with the setup identity; twice is fine. Returns its size in rows, if known.

        Raises:
            Invalid: it cannot be, and why.
        """
        return None

    def unregister(self, setup: Vault, slice_id: str, bound: BoundSlice) -> None:
        """Remove what `register` made; twice is fine. Raises as `register` does."""

    # Tables that can be chosen from, by name.

    has_catalogue: ClassVar[bool] = False
    # Whether a binding takes `fast`: indexes serve guests' conditions, at the price of telling of hidden rows.
    has_fast_form: ClassVar[bool] = False

    def read_catalogue(self, setup: Vault, connection: str) -> tuple[list[FoundTable], bool]:
        """The tables by schema and name, and whether there are more than are taken in."""
        return [], False

    def with_column_types(self, binding: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """A binding with its filters' values as its columns' types say.

        Args:
            columns: of a `FoundTable`.

        Raises:
            Invalid: a value means nothing, or not one thing exactly, beside its column.
        """
        return binding

    # Issuing.

    def check_proof(self, text: str) -> str:
        """Return a guest's public key or signing request in canonical form.

        Raises:
            Invalid: it is malformed, too weak, not what it should be, or the kind takes none.
        """
        raise Invalid(f"A credential of kind {self.name} does not use a public key.", field="/public_key")

    def policies(self, slice_id: str, action: str) -> list[str]:
        """The names of the OpenBao policies a child token for this slice and action needs."""
        return [policy_of(slice_id, action)] if self.needs_child_token else []

    @abstractmethod
    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Make the credential, short-lived until activated. What OpenBao refuses is `BackendDown`, too."""

    @abstractmethod
    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """What a guest does with the values in a tool of their own, and the command to type, without the secret."""

    def activate(self, vault: Vault, lease: LeaseToIssue, issued: Issued) -> None:
        """Lengthen what was issued to the lease's lifetime, if it needs that; the lease is recorded as active."""

    def renew(self, vault: Vault, lease: LeaseToEnd, seconds: int) -> None:
        """Let the same credential live `seconds` from now, where the kind is `renewable`.

        Raises:
            BackendDown: it did not answer usefully, or cannot; the credential ends as it would have.
        """
        raise keystore_failed(f"Credentials of kind {self.name} cannot be renewed.")

    # Ending.

    @abstractmethod
    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """Refuse new use, end what is open, revoke, then ask the backend; twice is fine.

        Returns:
            By lease id what confirmed its end, or why it is not confirmed: `NotEnded` if the backend still shows
            something, `Exposed` if it cannot end it sooner, `BackendDown` or `VaultRefused` if it could not be asked.
        """

    def end(self, vault: Vault, lease: LeaseToEnd) -> str:
        """As `end_many`, for one lease; what that would return as an error is raised."""
        outcome = self.end_many(vault, [lease])[lease.id]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def by_hand(self, lease: LeaseToEnd) -> str:
        """What an operator would type at the backend to end it, should the broker never manage to; "" for nothing."""
        return ""

    def list_credentials(self, vault: Vault, tag: str, bounds: Sequence[BoundSlice]) -> BackendListing:
        """What the backends behind these slices show with our tag; one that is silent is named, never left out."""
        return BackendListing()

    # OpenBao's own leases, for kinds that make credentials through an engine that keeps one for each.

    keeps_leases: ClassVar[bool] = False

    def keystore_leases(self, vault: Vault, slice_ids: frozenset[str]) -> frozenset[str]:
        """OpenBao's leases, by its own names, of credentials for these slices.

        One that outlives its credential is forgotten; a credential that outlives it has lost its backstop.
        """
        return frozenset()

    def settle(self, vault: Vault, lease: LeaseToEnd) -> None:
        """Let OpenBao forget a credential whose end is confirmed. Nothing depends on it; it may be lost."""

    # Statements by which OpenBao makes and ends credentials, kept for each slice.

    # Tells one version of them from another; "" where there are none.
    statements: ClassVar[str] = ""

    def update_statements(self, setup: Vault, slice_id: str, bound: BoundSlice) -> None:
        """Give OpenBao this version's statements for a slice that an earlier one registered."""

    # Guests' sessions that the backend shows and that take more than they may.

    has_login_blockers: ClassVar[bool] = False

    def end_overlong(self, vault: Vault, connection: str) -> Sequence[str]:
        """End sessions that run or hold something too long, or hold too many locks; returns their users' names."""
        return ()

    def end_login_blockers(self, vault: Vault, connection: str) -> Sequence[str]:
        """End sessions that make every log-in wait, and be ready to do it the next time; returns their users' names."""
        return ()

    def end_sessions(self, vault: Vault, connection: str, handles: Sequence[str]) -> int:
        """End what is open under these handles and nothing else, without waiting; returns of how many that can be.

        For leases whose log-in cannot be switched off at the moment.
        """
        return 0

    # What hosts ask, at each log-in or by fetching a list; at `/api/v1/<name>/…`.

    # How the API's description introduces that; "" where hosts ask nothing.
    asked_by_hosts: ClassVar[str] = ""

    def key_shown(self, handle: str, slice_id: str, action: str, account: str, certificate: str) -> str | None:
        """The public key of a certificate shown at a host, if it is made for this lease and account; else None."""
        return None

    def revoked_list(self, vault: Vault, connection: str, handles: Sequence[str], version: int) -> SignedList:
        """A signed list of leases that a host lets nobody in by any more.

        Args:
            version: grows from list to list; microseconds since 1970.

        Raises:
            BackendDown: OpenBao does not answer or refuses, or the list cannot be written here.
        """
        raise keystore_failed(f"There is no list for hosts of kind {self.name}.")

    # What gateways check certificates by, at `/pki/…`.

    has_authority: ClassVar[bool] = False

    def authority_of(self, vault: Vault) -> Authority:
        """The authority's certificate and its revocation list, whole and signed by it."""
        raise keystore_failed(f"No authority signs credentials of kind {self.name}.")

    # What lies behind a slice, where it may become something else under the same name.

    inspects_sources: ClassVar[bool] = False

    def inspect_sources(
        self, setup: Vault, connection: str, slices: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Mapping[str, Any] | None]:
        """What lies behind slices of one connection now, as JSON by slice id; None where nothing does.

        Args:
            slices: their bindings by id.
        """
        return {}

    def difference(
        self, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None, binding: Mapping[str, Any]
    ) -> str:
        """What has changed since `was`, as a sentence; "" if nothing. None: it was registered before this was kept."""
        return ""

    def outdated(self, was: Mapping[str, Any] | None) -> bool:
        """Whether the slice was made in another way than slices are made now, and is to be made again."""
        return False


def own_token(token: ChildToken | None) -> ChildToken:
    """The child token of a kind that `needs_child_token`."""
    if token is None:
        raise ValueError("this kind issues with a child token only")
    return token


def listed_by_each(
    kind: str,
    tag: str,
    bounds: Sequence[BoundSlice],
    ask: Callable[[BoundSlice], Iterable[tuple[str, str, bool]]],
    *,
    complete: bool = False,
) -> BackendListing:
    """What each connection shows, asked one after the other.

    Args:
        ask: the tag and lease id of each credential that one connection shows, and whether it is best ended there:
            servers that several connections lead to show the same. Raises `BackendDown`.
    """
    found: dict[str, ListedCredential] = {}
    asked, unasked, others = set[str](), dict[str, str](), set[str]()
    for name, bound in sorted({bound.connection: bound for bound in bounds}.items()):
        try:
            rows = list(ask(bound))
        except BackendDown as error:
            log.warning("connection.not_listed", kind=kind, connection=name, detail=error.detail)
            unasked[name] = error.detail
            continue
        asked.add(name)
        for other_tag, lease_id, at_home in rows:
            handle = f"{other_tag}-{lease_id}"
            if other_tag != tag:
                others.add(other_tag)
            elif at_home or handle not in found:
                found[handle] = ListedCredential(bound)
    return BackendListing(found, frozenset(asked), unasked, frozenset(others), complete)


def keystore_failed(detail: str, advice: str = TRY_AGAIN) -> BackendDown:
    """OpenBao did not do what issuing or ending needs of it."""
    return BackendDown(detail, backend="openbao", advice=advice)


@contextmanager
def refused_as(detail: str, advice: str = TRY_AGAIN, **of: str) -> Iterator[None]:
    """Say in these words what OpenBao refuses inside; its own go to the log, with what it is `of`.

    Raises:
        BackendDown: it refused.
    """
    try:
        yield
    except VaultRefused as error:
        log.warning("keystore.refused", detail=detail, error=str(error), **of)
        raise keystore_failed(detail, advice) from error
