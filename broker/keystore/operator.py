"""The operator's identity at OpenBao, for connecting what holds data. No running part of the broker holds it.

Speaks HTTP itself: `broker.keystore.vault` deliberately offers the running broker none of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from broker.base.errors import BackendDown, Conflict, Invalid
from broker.keystore.responses import DatabaseCredential, why_down

ROLE_ID = "guestkey-operator"
# Names of guests' users carry the lease: OpenBao takes them from the display name of the lease's own token.
USERNAME_TEMPLATE = (
    '{{ printf "gk_%s" (.DisplayName | replace "token-" "" | replace "-" "_" | lowercase | truncate 58) }}'
)
_SECONDS = 15


class OperatorStore:
    """A log-in of the operator identity; use `operator`."""

    def __init__(self, addr: str, ca_file: Path | None) -> None:
        self._addr = addr.rstrip("/")
        self._session = requests.Session()
        self._session.verify = str(ca_file) if ca_file else True
        self._session.trust_env = False

    def connections(self) -> dict[str, str]:
        """Names of the databases connected already, and the address of each."""
        names = (self._call("LIST", "database/config") or {}).get("data", {}).get("keys", [])
        found = {}
        for name in names:
            config = self._call("GET", f"database/config/{name}") or {}
            found[str(name)] = str(config.get("data", {}).get("connection_details", {}).get("connection_url", ""))
        return found

    def configure(self, name: str, plugin: Mapping[str, str]) -> None:
        """Give OpenBao the login of a database that makes users; it tries it at once.

        Args:
            plugin: name, address and login, as the database engine's plugin takes them.

        Raises:
            Conflict: it cannot log in there.
        """
        shared = {"allowed_roles": ["gk-*"], "username_template": USERNAME_TEMPLATE, "max_open_connections": 8}
        self._call("POST", f"database/config/{name}", {**shared, **plugin})

    def rotate(self, name: str) -> None:
        """Have OpenBao change the minter's password: from then on nobody else knows it."""
        self._call("POST", f"database/rotate-root/{name}", {})

    def keep(self, path: str, content: Mapping[str, str]) -> None:
        """Put what a connection needs into the store, where only identities that must read it do."""
        self._call("POST", f"guestkey/data/connections/{path}", {"data": dict(content)})

    def credential(self, role: str) -> DatabaseCredential:
        """Have a database user made."""
        answer = self._call("GET", f"database/creds/{role}")
        try:
            made = answer["data"]
            return DatabaseCredential(str(made["username"]), str(made["password"]), str(answer["lease_id"]))
        except (TypeError, KeyError) as error:
            raise BackendDown("The key store answered without a database user.", backend="openbao") from error

    def known(self, path: str, *keys: str) -> str:
        """A value that the key store has since it was set up.

        Raises:
            Conflict: it has none.
        """
        found = (self._call("GET", path) or {}).get("data", {})
        try:
            for key in keys:
                found = found[key]
        except (KeyError, TypeError) as error:
            raise Conflict(
                "The key store was set up by an earlier release.", advice="Run deploy/openbao/upgrade first."
            ) from error
        return str(found)

    def _log_in(self, secret_id: str) -> None:
        try:
            answer = self._call("POST", "auth/approle/login", {"role_id": ROLE_ID, "secret_id": secret_id})
            self._session.headers["X-Vault-Token"] = str(answer["auth"]["client_token"])
        except (Conflict, TypeError, KeyError) as error:
            raise Invalid(
                "The key store does not know the operator by this secret id.",
                field="/operator_secret_id_file",
                advice="Give the file with the secret id of the identity guestkey-operator.",
            ) from error

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self._session.request(
                method, f"{self._addr}/v1/{path}", json=body, timeout=_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            why = why_down(error)
            raise BackendDown(
                f"The key store cannot be used: {why}." if why else "The key store does not answer.",
                backend="openbao",
                advice="Check GUESTKEY_BAO_ADDR and GUESTKEY_BAO_CA_FILE; run it again.",
            ) from error
        if answer.status_code == 404 and method in ("GET", "LIST"):
            return None
        if not answer.ok:
            raise _refused(path, answer)
        try:
            return answer.json() if answer.content else {}
        except ValueError as error:
            raise BackendDown("The key store sent an invalid answer.", backend="openbao") from error


@contextmanager
def operator(addr: str, ca_file: Path | None, secret_id_file: Path) -> Iterator[OperatorStore]:
    """The operator, logged in; its token is given back afterwards.

    Raises:
        Invalid: the secret id is wrong.
        BackendDown: OpenBao does not answer.
    """
    store = OperatorStore(addr, ca_file)
    store._log_in(secret_id_file.read_text().strip())
    try:
        yield store
    finally:
        store._call("POST", "auth/token/revoke-self", {})


def _refused(path: str, answer: requests.Response) -> Exception:
    if answer.status_code == 403 and not path.startswith("auth/"):
        return Conflict(
            "The key store does not let the operator do this.",
            advice="Its policy guestkey-operator is older than this version: bring it up to date first.",
        )
    if answer.status_code >= 500 and not path.startswith("database/"):
        return BackendDown("The key store has a fault.", backend="openbao", advice="Look into its log; run it again.")
    if path.startswith("database/"):
        # What the plugin says names host and user, never a password: it masks the address.
        return Conflict(
            f"OpenBao cannot use the database: {_said(answer)}",
            advice="It must reach the database from its own machine, and read the CA file there. Then run it again.",
        )
    return Conflict(f"The key store refused: {_said(answer)}", advice="Run it again once that is mended.")


def _said(answer: requests.Response) -> str:
    try:
        errors = answer.json().get("errors", [])
    except (ValueError, AttributeError):
        errors = []
    said = " ".join(" ".join(str(error).split()) for error in errors)
    return "".join(character for character in said if character.isprintable())[:400] or f"HTTP {answer.status_code}"
