"""Renewing leases before they end, in one thread for all of a client's. Stops for a lease once that is of no use."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from guestkey.errors import BackendDown, Error, Refused
from guestkey.leases import Lease

log = logging.getLogger("guestkey")
# With this share of its time left a lease is renewed.
_SHARE = 1 / 3
_RETRY_SECONDS = 5.0
_STOP_SECONDS = 10.0
# No kind of trouble, only how things are: it says itself when it ends, or lives as long as it may.
_AS_IT_IS = frozenset({"not_renewable", "not_longer"})


@dataclass(slots=True)
class _Kept:
    lease: Lease
    due: float


class Renewing:
    """Leases that are kept alive. The thread begins with the first and never keeps the program running."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kept: dict[str, _Kept] = {}
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, lease: Lease) -> None:
        """Keep a lease alive until it is given back."""
        with self._changed:
            self._kept[lease.id] = _Kept(lease, _due(lease))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="guestkey-renewing", daemon=True)
                self._thread.start()
            self._changed.notify()

    def drop(self, lease: Lease) -> None:
        """Leave it alone."""
        with self._changed:
            self._kept.pop(lease.id, None)
            self._changed.notify()

    def stop(self) -> None:
        """Leave all of them alone; what is being renewed at this moment is waited for a little."""
        with self._changed:
            self._stopped = True
            self._kept.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while (kept := self._next()) is not None:
            due = _renewed(kept.lease)
            with self._changed:
                # Given back meanwhile: left alone.
                if due is None:
                    self._kept.pop(kept.lease.id, None)
                else:
                    kept.due = due

    def _next(self) -> _Kept | None:
        """The next lease that is due, once it is; None when stopped."""
        with self._changed:
            while not self._stopped:
                first = min(self._kept.values(), key=lambda kept: kept.due, default=None)
                left = first.due - time.monotonic() if first else None
                if first is not None and left is not None and left <= 0:
                    return first
                self._changed.wait(left)
        return None


def _due(lease: Lease) -> float:
    return time.monotonic() + lease.seconds_left() * (1 - _SHARE)


def _renewed(lease: Lease) -> float | None:
    """Renew one; returns when it is due next (monotonic), or None if never again."""
    if lease.over:
        return None
    try:
        lease.renew()
    except BackendDown as error:
        lease.trouble = error
        log.warning("Lease %s could not be renewed yet: %s", lease.id, error.what)
        return time.monotonic() + min(_RETRY_SECONDS, max(lease.seconds_left() / 4, 0.2))
    except Error as error:
        if not (isinstance(error, Refused) and error.code in _AS_IT_IS):
            lease.trouble = error
            log.warning("Lease %s is not renewed and ends at %s: %s", lease.id, lease.expires_at, error)
        return None
    lease.trouble = None
    return _due(lease)
