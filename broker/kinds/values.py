"""What kinds are told, and what they answer: plain values, without secrets but for `Issued`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel

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
class BoundSlice:
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
class ConnectionSetting:
    """What `GUESTKEY_<KIND>_CONNECTIONS` holds for each connection by its name: `SETTING` of a kind's `connection.py`.

    `check` completes connections that depend on one another or on the broker's own address, and raises ValueError.
    """

    model: type[BaseModel]
    description: str
    check: Callable[[Mapping[str, Any], str], None] = lambda connections, public_url: None


@dataclass(frozen=True, slots=True)
class FoundTable:
    """One table or view of a connection; see `broker.models.CatalogueTable`."""

    schema: str
    name: str
    rows: int | None
    usable: bool
    notes: list[str]
    columns: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SignedList:
    """A list of revoked credentials as text, and the 64 bytes of its Ed25519 signature (RFC 8032)."""

    text: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """What certificates of guests are checked by: who signs them, and the list of those that were revoked."""

    certificate_pem: bytes
    crl_der: bytes
    crl_pem: bytes


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
class ListedCredential:
    """Where a backend shows a handle of ours, and the backend's own name for it: what it can be ended by."""

    bound: BoundSlice
    backend_lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class BackendListing:
    """What the backends of a kind show now.

    `handles` are those with our tag, each with what to end it by; `asked` and `unasked` name the places that
    answered and those that did not, with why; `other_tags` are those of handles that are not ours. `complete`: at the
    places asked no credential of ours lives that is not among the handles.
    """

    handles: Mapping[str, ListedCredential] = field(default_factory=dict)
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
