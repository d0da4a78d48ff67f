"""OpenBao (or HashiCorp Vault), in the broker's words. The only importer of hvac.

Calls are synchronous and safe from any thread. Each costs at most the configured timeout, log-in and repeats included;
after a run of faults a circuit breaker answers at once for a while, so that a hung OpenBao never freezes the rest of
the house. Calls for which OpenBao must reach a dataset's database have limits and breakers of their own: a database
that hangs stops neither tokens nor second factors nor other databases. Texts of the backend go to the log, never into
the errors raised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, local
from time import monotonic
from typing import Any, TypeVar

import hvac
import requests
import structlog
from hvac import exceptions as refusals
from requests.adapters import HTTPAdapter

from broker.base.errors import BackendDown
from broker.base.resilience import BoundedSession, Breaker, ConcurrencyLimit
from broker.base.settings import BaoIdentity
from broker.keystore.engines import Engines
from broker.keystore.responses import (
    MISSHAPEN,
    ChildToken,
    DatabaseCredential,
    InvalidResponse,
    VaultRefused,
    checked_name,
    down,
    expecting_shape,
    number,
    text,
    unreachable,
    valid_json,
    why_down,
)

__all__ = ["ChildToken", "DatabaseCredential", "Vault", "VaultRefused"]

log = structlog.get_logger(__name__)
T = TypeVar("T")

LEASE_TOKEN_ROLE = "guestkey-lease"  # noqa: S105  a name
# Of the calls in flight, this share may wait for databases behind OpenBao.
_DATABASE_SHARE = 0.5
_LARGEST_PUBLIC = 16 * 1024 * 1024
_SEEN_SECONDS = 5.0
_DOWN = (
    requests.RequestException,
    refusals.VaultDown,
    refusals.VaultNotInitialized,
    refusals.BadGateway,
    refusals.RateLimitExceeded,
    refusals.UnexpectedError,
    InvalidResponse,
    *MISSHAPEN,
)


class Vault(Engines):
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
        super().__init__()
        self._addr = addr.rstrip("/")
        self._identity = identity
        self._timeout = timeout
        self._limit = ConcurrencyLimit(concurrency, down)
        self._database_limit = ConcurrencyLimit(max(1, int(concurrency * _DATABASE_SHARE)), down)
        self._breaker = Breaker()
        # What TLS failed at the last time, told while the breaker keeps everybody from trying.
        self._why_down = ""
        # By database role: the roles known are as many as slices in use, a few hundred bytes each.
        self._database_breakers: dict[str, Breaker] = defaultdict(Breaker)
        self._login_lock = Lock()
        self._renew_at = 0.0
        self._seen = (float("-inf"), True)
        self._deadline = local()
        self._session = requests.Session()
        self._session.mount(self._addr, HTTPAdapter(pool_maxsize=concurrency * 2))
        self._session.verify = str(ca_file) if ca_file else True
        self._session.trust_env = False
        self._client = self._new_client("")

    # -- leases' own tokens -------------------------------------------------------------------------------------

    def child_token(self, display_name: str, lease_id: str, policies: list[str], *, ttl: int) -> ChildToken:
        """Make the batch token of one lease: orphan, `ttl` seconds long, able to do just what the policies say.

        What is made with it ends with it at the latest.

        Raises:
            BackendDown: OpenBao does not answer, or refuses what the issuer identity must be able to do.
        """
        body = {
            "display_name": checked_name(display_name),
            "meta": {"lease": lease_id},
            "policies": [checked_name(policy) for policy in policies],
            "ttl": f"{ttl}s",
        }
        try:
            answer = self._write(f"auth/token/create/{LEASE_TOKEN_ROLE}", body)
        except VaultRefused as error:
            raise down("The key store refuses to issue credentials.") from error
        return ChildToken(text(answer, "auth", "client_token"))

    # -- database engine ----------------------------------------------------------------------------------------

    def database_credential(self, token: ChildToken, role: str) -> DatabaseCredential:
        """Read `database/creds/<role>` with a lease's own token."""
        client = self._new_client(token.token)
        path = f"database/creds/{checked_name(role)}"
        with self.deadline(self._timeout):
            answer = self._guarded(lambda: client.read(path), database_role=role)
        if answer is None:
            raise VaultRefused(f"no database role {role}")
        return DatabaseCredential(
            username=text(answer, "data", "username"),
            password=text(answer, "data", "password"),
            lease_id=text(answer, "lease_id"),
        )

    def renew_lease(self, lease_id: str, seconds: int) -> int:
        """Set a lease's remaining life; returns the seconds OpenBao granted."""
        body = {"lease_id": lease_id, "increment": seconds}
        return number(self._write("sys/leases/renew", body, database_role=_role_of_lease(lease_id)), "lease_duration")

    def revoke_lease(self, lease_id: str) -> None:
        """Revoke a lease and wait for the backend; twice is fine.

        Raises:
            VaultRefused: the revocation statements failed.
        """
        self._write("sys/leases/revoke", {"lease_id": lease_id, "sync": True}, database_role=_role_of_lease(lease_id))

    def lease_begun(self, lease_id: str) -> datetime | None:
        """When a lease was made, to the second; None if there is no such lease (any more)."""
        try:
            answer = self._write("sys/leases/lookup", {"lease_id": lease_id})
        except VaultRefused as error:
            if isinstance(error.__cause__, refusals.InvalidRequest):
                return None
            raise
        begun = text(answer, "data", "issue_time")
        with expecting_shape("data.issue_time"):
            at = datetime.fromisoformat(begun)
            # With the offset of OpenBao's host, whatever that is; without one it would be nobody's time.
            if at.tzinfo is None:
                raise ValueError(begun)
            return at.astimezone(UTC).replace(microsecond=0)

    def healthy(self) -> bool:
        """Whether OpenBao is unsealed, active and knows us.

        Raises:
            BackendDown: it does not answer, is sealed, or is a standby that cannot serve.
        """
        self._read("auth/token/lookup-self")
        return True

    def answers(self, seconds: float = 0.5) -> bool:
        """Whether OpenBao serves us, as seen in the last five seconds: for telling people, never for deciding.

        Args:
            seconds: how long to wait for it at most.
        """
        at, found = self._seen
        if monotonic() - at > _SEEN_SECONDS:
            try:
                with self.deadline(seconds):
                    found = self.healthy()
            except (BackendDown, VaultRefused):
                found = False
            self._seen = monotonic(), found
        return found

    # -- one call -----------------------------------------------------------------------------------------------

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Bound every call of this thread inside the block by one common end, `seconds` from now at the latest."""
        before: float | None = getattr(self._deadline, "at", None)
        mine = monotonic() + seconds
        self._deadline.at = mine if before is None else min(mine, before)
        try:
            yield
        finally:
            self._deadline.at = before

    def _remaining(self) -> float:
        at: float | None = getattr(self._deadline, "at", None)
        left = self._timeout if at is None else min(self._timeout, at - monotonic())
        if left <= 0:
            # A request abandoned at once would still be carried out.
            raise down()
        return left

    def _read(self, path: str) -> Any:
        return self._call(lambda: self._client.read(path))

    def _list(self, path: str) -> Any:
        return self._call(lambda: self._client.list(path))

    def _write(self, path: str, body: Mapping[str, Any], *, database_role: str = "") -> Any:
        return self._call(lambda: self._client.write_data(path, data=dict(body)), database_role=database_role)

    def _write_as(self, token: ChildToken, path: str, body: Mapping[str, Any]) -> Any:
        client = self._new_client(token.token)
        with self.deadline(self._timeout):
            return self._guarded(lambda: client.write_data(path, data=dict(body)))

    def _fetch(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        def fetched() -> bytes:
            answer = self._session.request(
                "GET" if body is None else "POST",
                f"{self._addr}/v1/{path}",
                data=body,
                headers={"Content-Type": content_type} if content_type else {},
                timeout=self._remaining(),
                allow_redirects=False,
            )
            if answer.status_code >= requests.codes.server_error:
                raise refusals.VaultDown
            if answer.status_code != requests.codes.ok:
                raise refusals.InvalidRequest
            if not answer.content or len(answer.content) > _LARGEST_PUBLIC:
                raise InvalidResponse
            return answer.content

        with self.deadline(self._timeout):
            return self._guarded(fetched)

    def _delete(self, path: str) -> None:
        self._call(lambda: self._client.delete(path))

    def _call(self, call: Callable[[], T], *, database_role: str = "") -> T:
        """One call as ourselves: logged in, and once more if our token has died."""
        with self.deadline(self._timeout):
            self._ensure_token()
            token = str(self._client.token)
            try:
                return self._guarded(call, database_role=database_role)
            except VaultRefused as error:
                # A dead token and a forbidden path read alike: only our own look-up tells them apart. If another
                # thread has replaced the token meanwhile, ours was the dead one.
                forbidden = isinstance(error.__cause__, refusals.Forbidden)
                if not forbidden or (self._token_lives() and str(self._client.token) == token):
                    raise
            self._log_in(dead=token)
            return self._guarded(call, database_role=database_role)

    def _guarded(self, call: Callable[[], T], *, database_role: str = "") -> T:
        """One request. `database_role` is the one whose server OpenBao must reach for it, and which may hang."""
        limit = self._database_limit if database_role else self._limit
        breakers = [self._breaker, self._database_breakers[database_role]] if database_role else [self._breaker]
        if not all(breaker.admit() for breaker in breakers):
            raise unreachable(self._why_down)
        with limit.entered(self._remaining()):
            try:
                answer = valid_json(call())
            except requests.ReadTimeout as error:
                breakers[-1].note(fault=True)
                self._why_down = ""
                log.warning("vault.silent", database_role=database_role)
                raise down() from error
            except _DOWN as error:
                self._breaker.note(fault=True)
                self._why_down = why_down(error)
                log.warning("vault.down", error=type(error).__name__, why=self._why_down)
                raise unreachable(self._why_down) from error
            except refusals.VaultError as error:
                self._note_alive(breakers)
                raise _refused(error) from error
            self._note_alive(breakers)
            return answer

    def _note_alive(self, breakers: list[Breaker]) -> None:
        self._why_down = ""
        for breaker in breakers:
            breaker.note(fault=False)

    # -- our own token ------------------------------------------------------------------------------------------

    def _new_client(self, token: str) -> hvac.Client:
        session = BoundedSession(self._session, self._remaining)
        # Never None, with which hvac would take a token from the environment or from ~/.vault-token.
        return hvac.Client(self._addr, token=token, session=session, timeout=self._timeout)

    def _ensure_token(self) -> None:
        if not self._client.token:
            self._log_in(dead="")
        elif monotonic() >= self._renew_at and self._login_lock.acquire(blocking=False):
            # Half of its life is left: whoever comes meanwhile need not wait.
            try:
                self._renew()
            finally:
                self._login_lock.release()

    def _log_in(self, *, dead: str) -> None:
        """Replace a token that is dead (or empty: there was none), unless another thread has."""
        if not self._login_lock.acquire(timeout=self._remaining()):
            raise down()
        try:
            if self._client.token == dead:
                self._replace_token()
        finally:
            self._login_lock.release()

    def _replace_token(self) -> None:
        try:
            secret_id = self._identity.secret_id_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            log.error("vault.secret_id_unreadable", file=str(self._identity.secret_id_file))
            raise down("The broker's own log-in for the key store cannot be read.") from error
        fresh = self._new_client("")
        try:
            answer = self._guarded(lambda: fresh.auth.approle.login(self._identity.role_id, secret_id, use_token=False))
        except VaultRefused as error:
            log.error("vault.login_refused", role_id=self._identity.role_id)
            raise down("The key store does not accept the broker's own log-in.") from error
        self._note_token(answer)

    def _renew(self) -> None:
        try:
            self._note_token(self._guarded(lambda: self._client.auth.token.renew_self()))
        except VaultRefused:
            # Dead, or at the end of its longest life.
            self._replace_token()

    def _note_token(self, answer: Any) -> None:
        token, seconds = text(answer, "auth", "client_token"), number(answer, "auth", "lease_duration")
        self._renew_at, self._client.token = monotonic() + seconds / 2, token

    def _token_lives(self) -> bool:
        try:
            self._guarded(lambda: self._client.auth.token.lookup_self())
        except VaultRefused:
            return False
        return True


def _refused(error: refusals.VaultError) -> Exception:
    if isinstance(error, refusals.InternalServerError):
        # A backend behind OpenBao failed; OpenBao itself is well.
        log.warning("vault.backend_failed", error=str(error)[:300])
        return down("A backend of the key store failed.")
    return VaultRefused(type(error).__name__)


def _role_of_lease(lease_id: str) -> str:
    """The database role a lease `database/creds/<role>/<id>` came from."""
    return (["unknown", *lease_id.split("/")])[-2]
