"""Signals around a credential: whatever interrupts us, the lease is ended first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

_MEANT_FOR_US = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handled(handler: Handler, names: tuple[str, ...] = _MEANT_FOR_US) -> Iterator[None]:
    """Give these signals to a handler while the block runs."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, previous)


class HeldSignals:
    """Being told to go waits until what is under way is done; being told twice does not."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def now(self) -> None:
        """Go, if told to meanwhile.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self.wanted:
            raise KeyboardInterrupt


def interrupting() -> AbstractContextManager[None]:
    """Being told to go is an interruption like Ctrl-C, so that `finally` runs."""
    return handled(_interrupt, ("SIGTERM", "SIGHUP", "SIGQUIT"))


def shielded() -> AbstractContextManager[None]:
    """Nothing interrupts the block; it must be bounded in time."""
    return handled(_ignore)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing, on purpose: what runs now ends within seconds."""
