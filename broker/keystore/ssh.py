"""What the broker asks of OpenBao's SSH engine: certificates of its authority, and the roles that bound them.

The calls themselves are `broker.keystore.vault.Vault`, which this is a part of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from broker.keystore.responses import ChildToken, VaultRefused, checked_name, text


class SshEngine(ABC):
    """Operations over the calls that `Vault` makes."""

    @abstractmethod
    def _read(self, path: str) -> Any:
        """What is at a path; None for nothing."""

    @abstractmethod
    def _write(self, path: str, body: Mapping[str, Any], *, database_role: str = "") -> Any:
        """Write and return the answer."""

    @abstractmethod
    def _delete(self, path: str) -> None:
        """Remove what is at a path; twice is fine."""

    @abstractmethod
    def _write_as(self, token: ChildToken, path: str, body: Mapping[str, Any]) -> Any:
        """The same as `_write`, with a lease's own token."""

    def ssh_authority(self) -> str:
        """The public key of the authority, `<type> <base64>`.

        Raises:
            VaultRefused: there is none, or this identity may not read it.
        """
        answer = self._read("ssh/config/ca")
        if answer is None:
            raise VaultRefused("no SSH authority")
        return text(answer, "data", "public_key").strip()

    def sign_ssh(
        self,
        role: str,
        public_key: str,
        principal: str,
        *,
        seconds: int,
        critical_options: Mapping[str, str] | None = None,
        token: ChildToken | None = None,
    ) -> str:
        """A user certificate for a key, `<type> <base64>`; its key id is `token-` and the token's display name.

        Args:
            seconds: how long it is valid from now.
            critical_options: instead of the role's own, where the role lets them be given.
            token: the lease's own; None: as ourselves.
        """
        body: dict[str, Any] = {
            "public_key": public_key,
            "valid_principals": principal,
            "cert_type": "user",
            "ttl": f"{seconds}s",
        }
        if critical_options:
            body["critical_options"] = dict(critical_options)
        path = f"ssh/sign/{checked_name(role)}"
        answer = self._write(path, body) if token is None else self._write_as(token, path, body)
        return text(answer, "data", "signed_key").strip()

    def write_ssh_role(self, role: str, definition: Mapping[str, Any]) -> None:
        """Create or replace a role; for the setup identity only."""
        self._write(f"ssh/roles/{checked_name(role)}", dict(definition))

    def delete_ssh_role(self, role: str) -> None:
        """Remove a role; twice is fine."""
        path = f"ssh/roles/{checked_name(role)}"
        self._delete(path)
