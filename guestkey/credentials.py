"""A credential for as long as a program runs: the lease in hand while it lives, and a new one before it ends.

For pools, sessions and filesystems, which ask for the values each time they need them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from guestkey.cli.wanted import Wanted
from guestkey.closing import Closing, all_of
from guestkey.leases import Lease

if TYPE_CHECKING:
    from guestkey.client import Client

# A lease with less left than this share of its life, or these seconds, is not begun with any more.
_SHARE, _SPARE_SECONDS = 0.2, 60.0


class Credentials(Closing):
    """Leases of the same, one after the other. Thread-safe; used in `with`, all are ended after the block."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self._client = client
        self._wanted = wanted
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._before: list[Lease] = []
        self._life = 0.0

    @property
    def spare(self) -> float:
        """Seconds before its end at which a lease is replaced."""
        return min(self._life * _SHARE, _SPARE_SECONDS)

    def worn(self, lease: Lease) -> bool:
        """Whether nothing more is to be begun with a lease: it was given back, or is about to end."""
        return lease.over or lease.seconds_left() <= self.spare

    def current(self, *, checked: bool = False) -> Lease:
        """The lease in hand, or a new one where it is about to end.

        Args:
            checked: ask the broker, too, whether it was ended; for what is about to begin with it.

        Raises:
            Denied, FactorNeeded: the gate says no to a new one.
            Error: none could be had.
        """
        with self._lock:
            lease = self._lease
            if lease is not None and not self.worn(lease) and (not checked or lease.alive()):
                return lease
            # The one before is left to its end, or until all is closed: what was begun with it may still be at it.
            fresh = self._client.take(self._wanted, instead_of=lease)
            self._before = [one for one in (*self._before, lease) if one is not None and one.owed]
            self._lease = fresh
            self._life = fresh.seconds_left()
            return fresh

    def close(self) -> None:
        """End the lease in hand, and those before it that still live.

        Raises:
            Error: the broker could not be told of one; all were tried, and are again when the client is closed.
        """
        with self._lock:
            before, lease = self._before, self._lease
            self._before, self._lease = [], None
        ends: list[Callable[[], object]] = [partial(one.end, wait=0) for one in before if one.owed]
        if lease is not None and lease.owed:
            ends.append(lease.end)
        all_of([*ends, self._client.end_lost])
