"""One lease in the hand of a program: its values, how long it still lives, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from broker.kinds.client import moment
from guestkey.cli.api import Api, Json, segment
from guestkey.cli.faults import Code, Fault
from guestkey.closing import Closing
from guestkey.errors import BackendDown, Error, typed

_PAUSE = 0.2
_OVER = frozenset({"revoked", "expired", "revoke_failed"})


class Lease(Closing):
    """A live credential. Thread-safe; used in `with`, it is ended after the block.

    It says of itself how long it lives by the server's clock: only how much time has passed is measured here.
    """

    def __init__(self, api: Callable[[], Api], answer: Json, values: Mapping[str, str], asked_at: float) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._values = MappingProxyType(dict(values))
        shown = answer["lease"]
        self.id = str(shown["id"])
        self.kind = str(shown["kind"])
        self.dataset = str(shown["dataset"])
        self.slice = str(shown["slice"])
        self._began = _time(shown, "created_at")
        self._asked_at = asked_at
        self._ends = self._ends_at_most = _time(shown, "expires_at")
        self._life = (self._ends - self._began).total_seconds()
        self._given_back = self._told = False
        self.trouble: Error | None = None
        self.on_end: Callable[[Lease], None] = lambda _lease: None

    def __repr__(self) -> str:
        return f"<Lease {self.id} of kind {self.kind} on {self.dataset}/{self.slice}, ends {self.expires_at}>"

    @property
    def values(self) -> Mapping[str, str]:
        """The credential, as its kind names its parts; with `private_key`, where one was made here for it."""
        return self._values

    @property
    def expires_at(self) -> datetime:
        """When it ends, by the server's clock, unless it is renewed."""
        with self._lock:
            return self._ends

    @property
    def over(self) -> bool:
        """Whether it was given back, or its time is up."""
        return self._given_back or self.seconds_left() <= 0

    @property
    def owed(self) -> bool:
        """Whether it may live, and the broker was not told of its end: a renewal whose answer was lost counts."""
        with self._lock:
            return not self._told and self._server_now() < self._ends_at_most

    def seconds_left(self) -> float:
        """Seconds until it ends; below 0 afterwards. A little too few, by how long the broker took to answer."""
        return (self.expires_at - self._server_now()).total_seconds()

    def alive(self) -> bool:
        """Whether it is live at the broker, which is asked.

        Raises:
            Error: it cannot be asked.
        """
        if self.over:
            return False
        with typed():
            return bool(self._api().get(f"/leases/{segment(self.id)}").get("state") == "active")

    def renew(self, lifetime: int | None = None) -> datetime:
        """Let it live longer, if every condition holds now; returns its new end. The values stay the same.

        Args:
            lifetime: seconds from now; None: as long as it was given for.

        Raises:
            Denied, FactorNeeded: it no longer qualifies, and ends when it would have.
            Refused: its kind cannot be renewed, or it lives as long as it may already.
            Error: it could not be asked for.
        """
        try:
            with typed():
                shown = self._api().post(f"/leases/{segment(self.id)}/renew", {"lifetime": lifetime})
                ends = _time(shown, "expires_at")
        except (BackendDown, KeyboardInterrupt):
            # It may have been renewed all the same.
            with self._lock:
                self._ends_at_most = self._server_now() + timedelta(seconds=lifetime or self._life)
            raise
        with self._lock:
            self._ends = self._ends_at_most = ends
        return ends

    def end(self, *, wait: float = 10.0) -> str:
        """Give it back; returns its state, once its backend confirmed the end or after `wait` seconds. Twice is fine.

        Raises:
            Error: the broker could not be told; it ends when its client is closed, or when its time is up.
        """
        self._given_back = True
        path, until = f"/leases/{segment(self.id)}", time.monotonic() + wait
        with typed():
            shown = self._api().post(f"{path}/revoke", {"reason": "no longer needed"})
            self._told = True
            self.on_end(self)
            # A backend that cannot end it sooner says until when: nothing to wait for.
            while shown.get("state") not in _OVER and not shown.get("exposed_until") and time.monotonic() < until:
                time.sleep(_PAUSE)
                shown = self._api().get(path)
        return str(shown.get("state"))

    def close(self) -> None:
        """End it, as `end` does."""
        self.end()

    def _server_now(self) -> datetime:
        return self._began + timedelta(seconds=time.monotonic() - self._asked_at)


def _time(shown: Mapping[str, Any], name: str) -> datetime:
    found = moment(shown.get(name))
    if found is None:
        raise Fault(Code.FAULT, "The server's answer is not valid.", why=f"A lease without {name}.")
    return found
