"""The kind interface: what issuing, ending and reconciling need of a kind of credential, and nothing more.

Kinds get plain values and a `Vault`; they know neither records nor HTTP. A new kind is one new folder beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from broker.keystore.vault import ChildToken, Vault

# Where the broker itself could not ask, among the places that did not say what they hold.
BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Ending:
    """How credentials of a kind end, declared honestly; seconds are upper bounds while every backend answers.

    `worst_case` is by how many seconds a credential outlives its lease at most, should the whole broker be gone;
    None means that nothing but its own expiry ends it for whoever checks it offline. `remembered`: for how many seconds
    after its issue, at the least, a backend with little room for it must remember what was ended; 0: there is room.
    """

    how: str
    new_sessions: int
    open_sessions: int
    worst_case: int | None
    remembered: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a slice lives: its binding, and what the settings say of the connection that names. Never a secret."""

    binding: Mapping[str, Any]
    place: Mapping[str, str] = field(default_factory=dict)

    @property
    def connection(self) -> str:
        """The name of the connection; "" where a kind has none."""
        return str(self.binding.get("connection", ""))


@dataclass(frozen=True, slots=True)
class BindingField:
    """What a binding of a kind says beside its connection, as a form asks for it."""

    name: str
    label: str
    hint: str


@dataclass(frozen=True, slots=True)
class Connects:
    """What connections of a kind are, as lists of them say it.

    `to` is what lies behind one, `slice_is` what a slice is called there. `asked`: workers ask each by itself which
    credentials it holds, so whether it answers is known.
    """

    to: str
    slice_is: str
    asked: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """What a guest brings for a credential whose secret never leaves its hands: a public key or a signing request.

    `how` is the command that makes it; the private half stays with whoever typed that.
    """

    name: str
    label: str
    how: str


@dataclass(frozen=True, slots=True)
class LeaseToIssue:
    """What a kind is told about the lease it issues for. `handle` is our name for it in every backend.

    `place` says where guests reach what the binding names, from the settings; `issuer` is our own address;
    `public_key` is what the kind's `check_proof` let pass; `networks` are the CIDRs the rule holds its holder to.
    """

    id: str
    handle: str
    subject: str
    dataset: str
    slice: str
    slice_id: str
    binding: Mapping[str, Any]
    action: str
    issued_at: datetime
    expires_at: datetime
    place: Mapping[str, str] = field(default_factory=dict)
    issuer: str = ""
    public_key: str = ""
    networks: tuple[str, ...] = ()

    @property
    def lifetime(self) -> int:
        """Whole seconds from issue to expiry."""
        return int((self.expires_at - self.issued_at).total_seconds())


@dataclass(frozen=True, slots=True)
class LeaseToEnd:
    """What a kind is told about the lease it ends or looks for. The backend's lease may be unknown.

    `now` is the records' clock when it was claimed; this machine's may be wrong.
    """

    id: str
    handle: str
    binding: Mapping[str, Any]
    backend_lease_id: str | None = None
    place: Mapping[str, str] = field(default_factory=dict)
    action: str = "read"
    expires_at: datetime | None = None
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh credential. `values` is what the guest gets, once; it stays out of every representation."""

    values: Mapping[str, str] = field(repr=False)
    backend_lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """How a guest uses a credential of a kind, in words and commands; no command ever holds a secret.

    `secrets` names the values that are concealed and wiped. `command` is what the command line does with it;
    `to_write` the same for writing, where that is more than one option.
    """

    about: str
    secrets: frozenset[str]
    command: str
    command_says: str
    to_write: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a backend shows a handle of ours, and the backend's own name for it: what it can be ended by."""

    bound: Bound
    backend_lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What the backends of a kind show now.

    `handles` are those with our tag, each with what to end it by; `asked` and `unasked` name the places that
    answered and those that did not, with why; `other_tags` are those of handles that are not ours. `complete`: at the
    places asked no credential of ours lives that is not among the handles.
    """

    handles: Mapping[str, Seen] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    unasked: Mapping[str, str] = field(default_factory=dict)
    other_tags: frozenset[str] = frozenset()
    complete: bool = False


class NotEnded(Exception):
    """The backend did not confirm that the credential is gone. The text is for operators, without secrets."""


class Exposed(Exception):
    """The backend has no means to end the credential before `until`, and says so; no failure.

    Args:
        again: when it may have the means, if before `until`; then it is asked, else at `until`.
    """

    def __init__(self, until: datetime, why: str, *, again: datetime | None = None) -> None:
        super().__init__(why)
        self.until = until
        self.again = until if again is None else min(again, until)


class Kind(Protocol):
    """One kind of credential.

    `position`: its place among the kinds wherever they are listed, lowest first.
    `at_backend`: something is made at a backend that slices are bound to, so a lease is pending first.
    `needs_child_token`: it is made through OpenBao, with a token of its own. `proof`: what its holder must bring.
    `connects`: what its slices lie in; None where that is nowhere.
    `binding_fields`: what a form asks of a slice beside its connection; None where it has pages of its own, or none.
    """

    name: str
    position: int
    ending: Ending
    use: Use
    actions: frozenset[str]
    at_backend: bool
    needs_child_token: bool
    renewable: bool
    proof: Proof | None
    connects: Connects | None
    binding_fields: tuple[BindingField, ...] | None

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the binding in canonical form.

        Raises:
            Invalid: anything in it is unknown, malformed, or could widen what the slice shows.
        """

    def check_proof(self, text: str) -> str:
        """Return a guest's public key or signing request in canonical form; only asked of kinds with a `proof`.

        Raises:
            Invalid: it is malformed, too weak, or not what it should be.
        """

    def register(self, setup: Vault, slice_id: str, bound: Bound) -> int | None:
        """Make a slice real at its backend, with the setup identity; twice is fine. Returns its size in rows, if known.

        Raises:
            Invalid: it cannot be, and why.
            BackendDown: a backend did not answer; it is tried again.
            VaultRefused: OpenBao refuses the setup identity.
        """

    def unregister(self, setup: Vault, slice_id: str, bound: Bound) -> None:
        """Remove what `register` made; twice is fine. Raises as `register` does."""

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """What a guest does with the values in a tool of their own, and the command to type, without the secret."""

    def policies(self, slice_id: str, action: str) -> list[str]:
        """The names of the OpenBao policies a child token for this slice and action needs."""

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Make the credential, short-lived until activated.

        Raises:
            BackendDown: a backend did not answer usefully in time.
        """

    def activate(self, vault: Vault, lease: LeaseToIssue, issued: Issued) -> None:
        """Lengthen what was issued to the lease's lifetime; called only once the lease is recorded as active."""

    def renew(self, vault: Vault, lease: LeaseToEnd, seconds: int) -> None:
        """Let the same credential live `seconds` from now; only asked of kinds that are `renewable`.

        Raises:
            BackendDown: it did not answer usefully, and the credential ends as it would have.
            VaultRefused: the backend refuses.
        """

    def end(self, vault: Vault, lease: LeaseToEnd) -> str:
        """Close the door, end what is open, revoke, then ask the backend. Returns what confirmed it; twice is fine.

        Raises:
            NotEnded: the backend still shows something.
            Exposed: the backend cannot end it sooner than it says.
            BackendDown: it could not be asked.
        """

    def by_hand(self, lease: LeaseToEnd) -> str:
        """What an operator would type at the backend to end it, should the broker never manage to; "" for nothing."""

    def shown(self, vault: Vault, tag: str, bounds: Sequence[Bound]) -> Shown:
        """What the backends behind these slices show with our tag; one that is silent is named, never left out."""


@runtime_checkable
class LendsAgain(Protocol):
    """A kind whose users are made and ended by statements that the key store keeps for each slice.

    `statements` tells one version of them from another.
    """

    name: str
    statements: str

    def lend_again(self, setup: Vault, slice_id: str, bound: Bound) -> None:
        """Give the key store this version's statements for a slice that an earlier one registered.

        Raises:
            BackendDown: the key store does not answer.
        """


@runtime_checkable
class HoldsToLimits(Protocol):
    """What a kind offers besides where a guest may switch off the timeouts of its own sessions."""

    def end_overlong(self, vault: Vault, connection: str) -> Sequence[str]:
        """End sessions that run or hold something too long, or hold too many locks; returns their users' names.

        Raises:
            BackendDown: the place does not answer.
        """


@runtime_checkable
class KeepsDoorOpen(Protocol):
    """What a kind offers besides where one guest can make every log-in wait."""

    def keep_door_open(self, vault: Vault, connection: str) -> Sequence[str]:
        """End sessions that do so, and be ready to do it the next time; returns their users' names.

        Raises:
            BackendDown: the place does not answer.
        """


@runtime_checkable
class KeepsOut(Protocol):
    """What a kind offers besides where sessions can be ended while the door cannot be closed."""

    def keep_out(self, vault: Vault, connection: str, handles: Sequence[str]) -> None:
        """End what is open under these handles and nothing else, without waiting for anything.

        Raises:
            BackendDown: the place does not answer.
        """


@runtime_checkable
class EndsTogether(Protocol):
    """What a kind offers besides where many credentials end sooner together than one after the other."""

    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """As `Kind.end`, for many: by lease id what confirmed its end or what `end` would have raised."""


@runtime_checkable
class KeepsLeases(Protocol):
    """What a kind offers besides where the key store keeps a lease of its own for each credential.

    One that outlives its credential is forgotten; a credential that outlives it has lost its backstop.
    """

    def kept(self, vault: Vault, slice_ids: frozenset[str]) -> frozenset[str]:
        """The key store's leases, by its own names, of credentials for these slices.

        Raises:
            BackendDown, VaultRefused: it did not say.
        """

    def settle(self, vault: Vault, lease: LeaseToEnd) -> None:
        """Let the key store forget a credential whose end is confirmed. Nothing depends on it; it may be lost."""


@runtime_checkable
class LooksAgain(Protocol):
    """What a kind offers besides where what lies behind a slice may become something else under the same name."""

    def look(
        self, setup: Vault, connection: str, slices: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Mapping[str, Any] | None]:
        """What lies behind slices of one connection now, as JSON by slice id; None where nothing does.

        Args:
            slices: their bindings by id.

        Raises:
            BackendDown: it could not be asked.
            VaultRefused: OpenBao refuses the setup identity.
        """

    def difference(
        self, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None, binding: Mapping[str, Any]
    ) -> str:
        """What has changed since `was`, as a sentence; "" if nothing. None: it was registered before this was kept."""

    def outdated(self, was: Mapping[str, Any] | None) -> bool:
        """Whether the slice was made in another way than slices are made now, and is to be made again."""
