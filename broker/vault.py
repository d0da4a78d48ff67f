"""OpenBao (or HashiCorp Vault), in the broker's words. The only importer of hvac.

Calls are synchronous and safe from any thread. Each costs at most the configured timeout; after a run of faults a
circuit breaker answers at once for a while, so that a hung OpenBao never freezes the rest of the house. Texts of
the backend go to the log, never into the errors raised.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Lock, local
from time import monotonic
from typing import Any, TypeVar

import hvac
import requests
import structlog
from hvac import exceptions as refusals
from requests.adapters import HTTPAdapter

from broker.errors import BackendDown
from broker.settings import BaoIdentity

log = structlog.get_logger(__name__)
T = TypeVar("T")

LEASE_TOKEN_ROLE = "guestkey-lease"  # noqa: S105  a name
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,126}[a-z0-9])?")
_FAULTS_TO_OPEN = 5
_OPEN_SECONDS = 3.0


class VaultRefused(Exception):
    """OpenBao answered and said no: a policy, a bad request, a backend behind it. Internal: never shown."""


@dataclass(frozen=True, slots=True)
class ChildToken:
    """A token of one lease, of exactly one path; kept nowhere."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DatabaseCredential:
    """What the database engine made: a login, and the lease it hangs on. `duration` is in seconds."""

    username: str
    password: str = field(repr=False)
    lease_id: str
    duration: int


def checked_name(name: str) -> str:
    """The name, if it is safe inside a path or policy: `[a-z0-9-]`, up to 128.

    Raises:
        ValueError: anything else; a stray `*` or `/` could widen a policy.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"unsafe name for OpenBao: {name!r}")
    return name


class _Breaker:
    """Opens after a run of faults; one caller in `_OPEN_SECONDS` tries again."""

    def __init__(self) -> None:
        self._faults = 0
        self._retry_at = 0.0
        self._lock = Lock()

    def admit(self) -> bool:
        with self._lock:
            if self._faults < _FAULTS_TO_OPEN:
                return True
            if monotonic() < self._retry_at:
                return False
            self._retry_at = monotonic() + _OPEN_SECONDS
            return True

    def note(self, *, fault: bool) -> None:
        with self._lock:
            self._faults = self._faults + 1 if fault else 0
            if self._faults >= _FAULTS_TO_OPEN:
                self._retry_at = monotonic() + _OPEN_SECONDS


class Vault:
    """One AppRole identity's view of OpenBao.

    Args:
        identity: role id and the file that holds the secret id; read again at every log-in.
        timeout: longest wait for one answer, in seconds.
        concurrency: calls in flight; more wait as long as `timeout`, then fail.
    """

    def __init__(
        self,
        addr: str,
        identity: BaoIdentity,
        *,
        timeout: float = 3.5,
        concurrency: int = 16,
        ca_file: Path | None = None,
    ) -> None:
        self._addr = addr.rstrip("/")
        self._identity = identity
        self._timeout = timeout
        self._limiter = BoundedSemaphore(concurrency)
        self._breaker = _Breaker()
        self._login_lock = Lock()
        self._renew_at = 0.0
        self._deadline = local()
        self._session = requests.Session()
        self._session.mount(self._addr, HTTPAdapter(pool_maxsize=concurrency * 2))
        self._session.verify = str(ca_file) if ca_file else True
        self._session.trust_env = False
        self._client = self._new_client(None)

    # -- leases' own tokens -------------------------------------------------------------------------------------

    def child_token(self, display_name: str, lease_id: str, policies: list[str], *, ttl: int) -> ChildToken:
        """Make the batch token of one lease: orphan, `ttl` seconds long, able to do just what the policies say.

        What is made with it ends with it at the latest.
        """
        body = {
            "display_name": checked_name(display_name),
            "meta": {"lease": lease_id},
            "policies": [checked_name(policy) for policy in policies],
            "ttl": f"{ttl}s",
        }
        auth = self._write(f"auth/token/create/{LEASE_TOKEN_ROLE}", body)["auth"]
        return ChildToken(auth["client_token"])

    # -- database engine ----------------------------------------------------------------------------------------

    def database_credential(self, token: ChildToken, role: str) -> DatabaseCredential:
        """Read `database/creds/<role>` with a lease's own token."""
        client = self._new_client(token.token)
        path = f"database/creds/{checked_name(role)}"
        answer = self._guarded(lambda: client.read(path))
        if answer is None:
            raise VaultRefused(f"no database role {role}")
        data = answer["data"]
        return DatabaseCredential(data["username"], data["password"], answer["lease_id"], answer["lease_duration"])

    def renew_lease(self, lease_id: str, seconds: int) -> int:
        """Set a lease's remaining life; returns the seconds OpenBao granted."""
        answer = self._write("sys/leases/renew", {"lease_id": lease_id, "increment": seconds})
        return int(answer["lease_duration"])

    def revoke_lease(self, lease_id: str) -> None:
        """Revoke a lease and wait for the backend; twice is fine.

        Raises:
            VaultRefused: the revocation statements failed.
        """
        self._write("sys/leases/revoke", {"lease_id": lease_id, "sync": True})

    def lease_exists(self, lease_id: str) -> bool:
        """Whether OpenBao still knows the lease."""
        try:
            self._write("sys/leases/lookup", {"lease_id": lease_id})
        except VaultRefused:
            return False
        return True

    def list_database_leases(self, role: str) -> list[str]:
        """Full lease ids OpenBao holds for a database role."""
        prefix = f"database/creds/{checked_name(role)}"
        return [f"{prefix}/{key}" for key in self._list(f"sys/leases/lookup/{prefix}")]

    # -- transit ------------------------------------------------------------------------------------------------

    def encrypt(self, key: str, plaintext: bytes, *, context: str | None = None) -> str:
        """Wrap bytes under a transit key; for a derived key `context` binds the result to one owner."""
        body = {"plaintext": base64.b64encode(plaintext).decode()}
        if context is not None:
            body["context"] = base64.b64encode(context.encode()).decode()
        return str(self._write(f"transit/encrypt/{checked_name(key)}", body)["data"]["ciphertext"])

    def decrypt(self, key: str, ciphertext: str, *, context: str | None = None) -> bytes:
        """Unwrap what `encrypt` made.

        Raises:
            VaultRefused: wrong context, altered text, or a key that is gone.
        """
        body = {"ciphertext": ciphertext}
        if context is not None:
            body["context"] = base64.b64encode(context.encode()).decode()
        return base64.b64decode(self._write(f"transit/decrypt/{checked_name(key)}", body)["data"]["plaintext"])

    def sign_jws(self, key: str, signing_input: bytes, *, version: int) -> str:
        """An ES256 signature of the input in JWS form (RFC 7515: r and s, base64url), by one key version."""
        body = {
            "input": base64.b64encode(signing_input).decode(),
            "marshaling_algorithm": "jws",
            "hash_algorithm": "sha2-256",
            "key_version": version,
        }
        signature = self._write(f"transit/sign/{checked_name(key)}", body)["data"]["signature"]
        return str(signature).rsplit(":", 1)[1]

    def public_keys(self, key: str) -> tuple[int, dict[int, str]]:
        """The newest version of a signing key and the public keys (PEM) of every version."""
        answer = self._read(f"transit/keys/{checked_name(key)}")
        if answer is None:
            raise VaultRefused(f"no transit key {key}")
        data = answer["data"]
        return int(data["latest_version"]), {int(n): str(k["public_key"]) for n, k in data["keys"].items()}

    # -- secrets of the broker's own hands ----------------------------------------------------------------------

    def secret(self, path: str) -> Mapping[str, str]:
        """The newest version of a secret in the key-value mount `guestkey`.

        Raises:
            VaultRefused: there is none, or this identity may not read it.
        """
        answer = self._read(f"guestkey/data/{path}")
        if answer is None:
            raise VaultRefused(f"no secret {path}")
        secret: Mapping[str, str] = answer["data"]["data"]
        return secret

    # -- setting up slices --------------------------------------------------------------------------------------

    def write_database_role(self, role: str, definition: Mapping[str, Any]) -> None:
        """Create or replace a database role; for the setup identity only."""
        self._write(f"database/roles/{checked_name(role)}", dict(definition))

    def delete_database_role(self, role: str) -> None:
        """Remove a database role; twice is fine."""
        path = f"database/roles/{checked_name(role)}"
        self._call(lambda: self._client.delete(path))

    def write_policy(self, name: str, hcl: str) -> None:
        """Create or replace an ACL policy; for the setup identity only."""
        self._write(f"sys/policies/acl/{checked_name(name)}", {"policy": hcl})

    def healthy(self) -> bool:
        """Whether OpenBao is unsealed, active and knows us.

        Raises:
            BackendDown: it does not answer, is sealed, or is a standby that cannot serve.
        """
        self._read("auth/token/lookup-self")
        return True

    # -- one call -----------------------------------------------------------------------------------------------

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Bound every call of this thread inside the block by one common end, `seconds` from now."""
        self._deadline.at = monotonic() + seconds
        try:
            yield
        finally:
            self._deadline.at = None

    def _read(self, path: str) -> Any:
        return self._call(lambda: self._client.read(path))

    def _write(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call(lambda: self._client.write_data(path, data=dict(body)))

    def _list(self, path: str) -> list[str]:
        answer = self._call(lambda: self._client.list(path))
        return list(answer["data"]["keys"]) if answer else []

    def _call(self, call: Callable[[], T]) -> T:
        """One call as ourselves: logged in, and once more if our token has died."""
        self._ensure_token()
        try:
            return self._guarded(call)
        except VaultRefused as error:
            # A dead token and a forbidden path read alike: only our own look-up tells them apart.
            if not isinstance(error.__cause__, refusals.Forbidden) or self._token_lives():
                raise
        self._log_in(force=True)
        return self._guarded(call)

    def _guarded(self, call: Callable[[], T]) -> T:
        if not self._breaker.admit():
            raise _down()
        if not self._limiter.acquire(timeout=self._remaining()):
            raise _down()
        fault = True
        try:
            answer = call()
            fault = False
            return answer
        except (refusals.VaultDown, refusals.BadGateway, refusals.RateLimitExceeded) as error:
            log.warning("vault.down", error=type(error).__name__)
            raise _down() from error
        except refusals.InternalServerError as error:
            # A backend behind OpenBao failed; OpenBao itself is well.
            fault = False
            log.warning("vault.backend_failed", error=str(error)[:300])
            raise _down("A backend behind the key store failed.") from error
        except refusals.VaultError as error:
            fault = False
            raise VaultRefused(type(error).__name__) from error
        except requests.RequestException as error:
            log.warning("vault.unreachable", error=type(error).__name__)
            raise _down() from error
        finally:
            self._breaker.note(fault=fault)
            self._limiter.release()

    def _remaining(self) -> float:
        at = getattr(self._deadline, "at", None)
        return self._timeout if at is None else max(0.05, min(self._timeout, at - monotonic()))

    # -- our own token ------------------------------------------------------------------------------------------

    def _new_client(self, token: str | None) -> hvac.Client:
        session = _Bounded(self._session, self._remaining)
        return hvac.Client(self._addr, token=token, session=session, timeout=self._timeout)

    def _ensure_token(self) -> None:
        if self._client.token and monotonic() < self._renew_at:
            return
        self._log_in(force=False)

    def _log_in(self, *, force: bool) -> None:
        with self._login_lock:
            if not force and self._client.token and monotonic() < self._renew_at:
                return
            if not force and self._client.token and self._renew():
                return
            secret_id = self._identity.secret_id_file.read_text().strip()
            fresh = self._new_client(None)
            answer = self._guarded(lambda: fresh.auth.approle.login(self._identity.role_id, secret_id, use_token=False))
            self._note_token(answer["auth"])

    def _renew(self) -> bool:
        try:
            self._note_token(self._guarded(lambda: self._client.auth.token.renew_self())["auth"])
        except VaultRefused:
            return False
        return True

    def _note_token(self, auth: Mapping[str, Any]) -> None:
        self._client.token = auth["client_token"]
        self._renew_at = monotonic() + auth["lease_duration"] / 2

    def _token_lives(self) -> bool:
        try:
            self._guarded(lambda: self._client.auth.token.lookup_self())
        except VaultRefused:
            return False
        return True


class _Bounded:
    """A view of the shared session that gives every request what remains of the thread's deadline."""

    def __init__(self, session: requests.Session, remaining: Callable[[], float]) -> None:
        self._session = session
        self._remaining = remaining

    def request(self, **arguments: Any) -> requests.Response:
        arguments["timeout"] = self._remaining()
        arguments.pop("verify", None)
        return self._session.request(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _down(detail: str = "The key store does not answer, so nothing can be issued.") -> BackendDown:
    return BackendDown(
        detail,
        backend="openbao",
        advice="Try again in a minute. If it lasts, tell the operator: /readyz names what is missing.",
    )
