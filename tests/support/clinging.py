"""A guest who does not let go: logs in again and again, while its credential is being ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

S = TypeVar("S")


@contextmanager
def clinging(log_in: Callable[[], S], refused: type[Exception], close: Callable[[S], None]) -> Iterator[list[S]]:
    """Three threads that log in as often as they can. Yields the sessions they get."""
    stop, sessions = threading.Event(), list[S]()

    def reconnect() -> None:
        while not stop.is_set():
            try:
                sessions.append(log_in())
            except refused:
                time.sleep(0.002)

    threads = [threading.Thread(target=reconnect) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.2)
        yield sessions
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
        for session in sessions:
            close(session)
