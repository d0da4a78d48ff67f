"""One time limit for one message: looking a name up, connecting, and every byte, however slowly the other side drips.

A socket's own time limit begins anew with every byte, and no limit of ours ends a name being looked up. So connections
are made here, where they can be cut, and what cannot be cut is done aside and left behind.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Self, TypeVar

T = TypeVar("T")
_MOST_TRIED = 3


class AbandonableWork:
    """Work that cannot be cut, in threads that are left behind if it takes too long; at most so many at a time."""

    def __init__(self, most: int) -> None:
        self._free = threading.BoundedSemaphore(most)

    def do(self, work: Callable[[], T], deadline: Deadline) -> T:
        """What the work returns or raises.

        Raises:
            TimeoutError: the deadline passed, or nobody was free until then.
        """
        if not self._free.acquire(timeout=deadline.left()):
            raise TimeoutError
        answer: Future[T] = Future()
        try:
            # Not of a pool: those are waited for when the process ends.
            threading.Thread(target=self._do, args=(work, answer), name="aside", daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise
        return answer.result(timeout=deadline.left())

    def _do(self, work: Callable[[], T], answer: Future[T]) -> None:
        try:
            answer.set_result(work())
        except Exception as error:  # noqa: BLE001  whoever waits for the answer is to meet it
            answer.set_exception(error)
        finally:
            self._free.release()


class Deadline:
    """Entered when a message sets out; when its time is over, every connection made through it is cut."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over_at = monotonic() + seconds
        self._lines: list[socket.socket] = []
        self._cut = False
        self._lock = threading.Lock()
        self._watch = threading.Timer(seconds, self._cut_all)
        self._watch.daemon = True

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.cancel()
        with self._lock:
            for line in self._lines:
                line.close()
            self._lines.clear()

    def left(self) -> float:
        """The seconds left.

        Raises:
            TimeoutError: none.
        """
        left = self._over_at - monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def look_up(self, host: str, aside: AbandonableWork) -> list[str]:
        """The addresses of a name.

        Raises:
            OSError: it has none, or they were not told in time.
        """
        found = aside.do(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM), self)
        return list(dict.fromkeys(str(item[4][0]) for item in found))

    def connect(self, addresses: Sequence[str], port: int) -> socket.socket:
        """A connection to the first of these addresses that answers.

        Raises:
            OSError: none did in time.
        """
        fault = OSError("no address")
        for address in addresses[:_MOST_TRIED]:
            seconds = min(self.left(), self._seconds / _MOST_TRIED)
            try:
                line = socket.create_connection((address, port), timeout=seconds)
            except OSError as error:
                fault = error
                continue
            self.add(line)
            line.settimeout(self.left())
            return line
        raise fault

    def add(self, line: socket.socket) -> None:
        """Cut this connection when the time is over; at once if it is."""
        # TLS takes a connection over under another name: a copy of its handle ends it under any.
        copy = line.dup()
        with self._lock:
            if self._cut:
                _end(copy)
                copy.close()
            else:
                self._lines.append(copy)

    def _cut_all(self) -> None:
        with self._lock:
            self._cut = True
            for line in self._lines:
                _end(line)


def _end(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
