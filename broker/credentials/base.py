"""The kind interface: what issuing, ending and reconciling need of a kind of credential, and nothing more.

Kinds get plain values and a `Vault`; they know neither records nor HTTP. A new kind is one new file beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from broker.vault import ChildToken, Vault


@dataclass(frozen=True, slots=True)
class Ending:
    """How credentials of a kind end, declared honestly; seconds are upper bounds while every backend answers.

    `worst_case` is by how many seconds a credential outlives its lease at most, should the whole broker be gone;
    None means that nothing but its own expiry ends it for whoever checks it offline.
    """

    how: str
    new_sessions: int
    open_sessions: int
    worst_case: int | None


@dataclass(frozen=True, slots=True)
class LeaseToIssue:
    """What a kind is told about the lease it issues for. `handle` is our name for it in every backend.

    `place` says where guests reach what the binding names, from the settings; `issuer` is our own address.
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

    @property
    def lifetime(self) -> int:
        """Whole seconds from issue to expiry."""
        return int((self.expires_at - self.issued_at).total_seconds())


@dataclass(frozen=True, slots=True)
class LeaseToEnd:
    """What a kind is told about the lease it ends or looks for. The backend's lease may be unknown."""

    id: str
    handle: str
    binding: Mapping[str, Any]
    backend_lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh credential. `values` is what the guest gets, once; it stays out of every representation."""

    values: Mapping[str, str] = field(repr=False)
    backend_lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """How a guest uses a credential of a kind, in words and commands; no command ever holds a secret.

    `secrets` names the values that are concealed and wiped. `command` is what the command line does with it.
    """

    about: str
    secrets: frozenset[str]
    command: str
    command_says: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What the backends of a kind show now.

    `handles` are those with our tag, each with the binding to end it by; `asked` and `unasked` name the places that
    answered and those that did not, with why; `other_tags` are those of handles that are not ours.
    """

    handles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    unasked: Mapping[str, str] = field(default_factory=dict)
    other_tags: frozenset[str] = frozenset()


class NotEnded(Exception):
    """The backend did not confirm that the credential is gone. The text is for operators, without secrets."""


class Kind(Protocol):
    """One kind of credential."""

    name: str
    ending: Ending
    use: Use
    actions: frozenset[str]
    needs_child_token: bool
    renewable: bool

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the binding in canonical form.

        Raises:
            Invalid: anything in it is unknown, malformed, or could widen what the slice shows.
        """

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """What a guest does with the values in a tool of their own, and the command to type, without the secret."""

    def policies(self, slice_id: str) -> list[str]:
        """The names of the OpenBao policies a child token for this slice needs."""

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
            BackendDown: it could not be asked.
        """

    def by_hand(self, lease: LeaseToEnd) -> str:
        """What an operator would type at the backend to end it, should the broker never manage to; "" for nothing."""

    def shown(self, vault: Vault, tag: str, bindings: Sequence[Mapping[str, Any]]) -> Shown:
        """What the backends behind these bindings show with our tag; one that is silent is named, never left out."""
