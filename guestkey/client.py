"""One installation, as one caller: a person who ran `guestkey login`, a token, or a service with its secret."""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import partial

from guestkey.cli import authorities, config, keypairs, tokens
from guestkey.cli.api import Api, Json, segment
from guestkey.cli.faults import Code, Fault
from guestkey.cli.wanted import Wanted, settled
from guestkey.closing import Closing, all_of
from guestkey.credentials import Credentials
from guestkey.errors import BackendDown, Error, typed
from guestkey.leases import Lease
from guestkey.renewing import Renewing

# A service's token is replaced with so much of its time left.
_TOKEN_SPARE_SECONDS = 60.0
# So long a lease lives at most that nobody said a lifetime of, and a little.
_LIFETIME_SECONDS, _LOST_SPARE_SECONDS = 900.0, 60.0


class Client(Closing):
    """Gets credentials, renews what can be renewed, and gives back what is left when it is closed. Thread-safe.

    Args:
        url: the installation; None: `GUESTKEY_URL`, or where `guestkey login` signed in last.
        token: an API token; None: `GUESTKEY_TOKEN`, or the one that `guestkey login` kept.
        service: a service's id and secret instead of a token; None: `GUESTKEY_CLIENT_ID` and `GUESTKEY_CLIENT_SECRET`,
            if both are set and no token is.

    Raises:
        NotSignedIn: no installation or no token is known.
        Refused: what is known is of no use.
    """

    def __init__(
        self, url: str | None = None, *, token: str | None = None, service: tuple[str, str] | None = None
    ) -> None:
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}
        # By idempotency key what was asked for without an answer, and when that is over (monotonic).
        self._lost: dict[str, tuple[Wanted, float]] = {}
        self._renewing = Renewing()
        self._token_ends = float("inf")
        with typed():
            self.url = config.installation_url(url)
            self._service = service or (None if token else _service_of_environment())
            found = None if self._service else token or tokens.load(self.url)
            if found is None and self._service is None:
                raise Fault(Code.SIGN_IN, f"You are not signed in to {self.url}.", next_step="guestkey login")
            self._http = Api(self.url, found)
        if self._service is not None:
            self._token_ends = 0.0

    def lease(
        self,
        dataset: str,
        *,
        kind: str | None = None,
        slice: str | None = None,
        action: str = "read",
        lifetime: int | None = None,
        public_key: str | None = None,
    ) -> Lease:
        """Get a credential, and keep it alive until it is given back where its kind can be renewed.

        Args:
            kind: such as `postgres` or `s3`; None: the dataset's own, if its slices are all of one.
            lifetime: seconds; None: as the rule allows, a quarter of an hour at most.
            public_key: of a key of your own, for `ssh` and `x509`; None: one is made, and is in `values`.

        Raises:
            Denied: with every reason.
            FactorNeeded: a person must confirm first.
            Error: none could be had.
        """
        return self.take(Wanted(dataset, kind, slice, action, lifetime, public_key))

    def credentials(
        self,
        dataset: str,
        *,
        kind: str | None = None,
        slice: str | None = None,
        action: str = "read",
        lifetime: int | None = None,
    ) -> Credentials:
        """Credentials for as long as the program runs, one lease after the other; the first when it is needed."""
        return Credentials(self, Wanted(dataset, kind, slice, action, lifetime))

    def take(self, wanted: Wanted, *, instead_of: Lease | None = None) -> Lease:
        """The same as `lease`, for all that is wanted at once; the lease it is taken `instead_of` is renewed no longer.

        Raises:
            Error: as `lease`.
        """
        with typed():
            wanted = settled(self._api(), wanted)
            pair = keypairs.made(wanted.kind) if wanted.public_key is None else None
            if pair:
                wanted = replace(wanted, public_key=pair.public)
            asked_at = time.monotonic()
            answer = self._issue(wanted)
            values = {name: str(value) for name, value in answer["credential"].items()}
            if pair:
                values["private_key"] = pair.private
            authorities.settled(str(answer["lease"].get("kind") or wanted.kind), values)
            lease = Lease(self._api, answer, values, asked_at)
        lease.on_end = self._forget
        with self._lock:
            self._leases = {id_: kept for id_, kept in self._leases.items() if kept.owed} | {lease.id: lease}
        self._renewing.add(lease)
        if instead_of is not None:
            self._renewing.drop(instead_of)
        return lease

    def close(self) -> None:
        """End every lease that is left, one whose answer was lost, too; whichever cannot be ended now ends by itself.

        Raises:
            Error: the broker could not be told of one of them; all were tried.
        """
        self._renewing.stop()
        with self._lock:
            left, self._leases = list(self._leases.values()), {}
        try:
            all_of([*(partial(lease.end, wait=0) for lease in left if lease.owed), self.end_lost])
        finally:
            self._http.close()

    def end_lost(self) -> None:
        """End leases that were asked for and never got here, as far as that could not be done at once.

        Raises:
            Error: the broker could not be told; they end by themselves.
        """
        with self._lock:
            self._lost = {key: lost for key, lost in self._lost.items() if time.monotonic() < lost[1]}
            left = list(self._lost)
        all_of(partial(self._end_lost, key) for key in left)

    def _issue(self, wanted: Wanted) -> Json:
        key, api = str(uuid.uuid4()), self._api()
        try:
            answer = api.post("/leases", wanted.body(), key=key)
        except Fault as fault:
            if fault.code is Code.BACKEND and not fault.problem and not _never_sent(fault):
                self._lose(wanted, key)
            raise
        except KeyboardInterrupt:
            self._lose(wanted, key)
            raise
        if not isinstance(answer.get("credential"), dict):
            raise Fault(
                Code.FAULT, "This credential was already delivered.", next_step="Run it again to get a new one."
            )
        return answer

    def _lose(self, wanted: Wanted, key: str) -> None:
        """The answer was lost on its way: what it held nobody can use, so it must not live on."""
        over = time.monotonic() + (wanted.lifetime or _LIFETIME_SECONDS) + _LOST_SPARE_SECONDS
        with self._lock:
            self._lost[key] = (wanted, over)
        with suppress(Error):
            self._end_lost(key)

    def _end_lost(self, key: str) -> None:
        with self._lock:
            lost = self._lost.get(key)
        if lost is None:
            return
        try:
            with typed():
                lease = self._api().post("/leases", lost[0].body(), key=key)["lease"]
                self._api().post(f"/leases/{segment(str(lease['id']))}/revoke", {"reason": "its answer was lost"})
        except Error as error:
            # Any other is a refusal: nothing was made with this key, or it may not be ended from here.
            if isinstance(error, BackendDown):
                raise
        with self._lock:
            self._lost.pop(key, None)

    def _forget(self, lease: Lease) -> None:
        self._renewing.drop(lease)
        with self._lock:
            self._leases.pop(lease.id, None)

    def _api(self) -> Api:
        """The API with a token that lives; a service's own is replaced before it ends."""
        if self._service is not None:
            with self._lock:
                if time.monotonic() > self._token_ends - _TOKEN_SPARE_SECONDS:
                    self._sign_in(*self._service)
        return self._http

    def _sign_in(self, client_id: str, secret: str) -> None:
        # RFC 6749, 4.4.
        asked_at = time.monotonic()
        fields = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        # One way to authenticate at a time: the token of before must not go along.
        nobody = Api(self.url, None)
        try:
            answer = nobody.form("/oauth/token", fields)
        finally:
            nobody.close()
        self._http.authenticate(str(answer["access_token"]))
        self._token_ends = asked_at + float(answer["expires_in"])


def _never_sent(fault: Fault) -> bool:
    """Whether nobody can have heard what was asked for."""
    import httpx

    return isinstance(fault.__cause__, httpx.ConnectError | httpx.ConnectTimeout)


def _service_of_environment() -> tuple[str, str] | None:
    id_, secret = os.environ.get("GUESTKEY_CLIENT_ID"), os.environ.get("GUESTKEY_CLIENT_SECRET")
    return (id_, secret) if id_ and secret and not os.environ.get("GUESTKEY_TOKEN") else None
