"""A circuit breaker, a concurrency limit, a bounded HTTP session: what hangs costs a few callers a wait, then nobody.

Knows nothing of the backend; whoever calls says what counts as a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import Any

import requests


class Breaker:
    """Opens after `faults` in a row; then one caller every `pause` seconds may try. Safe from any thread."""

    def __init__(self, *, faults: int = 5, pause: float = 3.0) -> None:
        self._most = faults
        self._pause = pause
        self._faults = 0
        self._retry_at = 0.0
        self._lock = Lock()

    def admit(self) -> bool:
        """Whether to try now. While open, the caller admitted is the probe for all others."""
        with self._lock:
            if self._faults < self._most:
                return True
            if monotonic() < self._retry_at:
                return False
            self._retry_at = monotonic() + self._pause
            return True

    def note(self, *, fault: bool) -> None:
        """What became of a try."""
        with self._lock:
            self._faults = self._faults + 1 if fault else 0
            if self._faults >= self._most:
                self._retry_at = monotonic() + self._pause


class ConcurrencyLimit:
    """Lets at most `places` callers in at once.

    Args:
        error: makes the error raised for whoever waited in vain.
    """

    def __init__(self, places: int, error: Callable[[], Exception]) -> None:
        self._places = BoundedSemaphore(places)
        self._error = error

    @contextmanager
    def entered(self, seconds: float) -> Iterator[None]:
        """A place for the block, waited for at most `seconds`."""
        if not self._places.acquire(timeout=seconds):
            raise self._error()
        try:
            yield
        finally:
            self._places.release()


class BoundedSession:
    """A view of a shared HTTP session that gives every request what remains of its thread's time.

    Args:
        remaining: seconds left, asked once a request; may raise.
    """

    def __init__(self, session: requests.Session, remaining: Callable[[], float]) -> None:
        self._session = session
        self._remaining = remaining

    def request(self, **arguments: Any) -> requests.Response:
        """See `requests.Session.request`."""
        arguments["timeout"] = self._remaining()
        # Certificates come from the settings, by way of the session; a client library takes them from the environment.
        for taken in ("verify", "cert", "proxies"):
            arguments.pop(taken, None)
        return self._session.request(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
