"""What is used in `with`: closed after the block, and never at the price of what went wrong inside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from guestkey.errors import Error

if TYPE_CHECKING:
    from typing import Self


def all_of(closings: Iterable[Callable[[], object]]) -> None:
    """Call each, whatever the others raise.

    Raises:
        Error: the first that was raised, once all were called; the others are among its notes.
    """
    trouble: Error | None = None
    for close in closings:
        try:
            close()
        except Error as error:
            if trouble is None:
                trouble = error
            else:
                trouble.add_note(f"And: {error}")
    if trouble is not None:
        raise trouble


class Closing(ABC):
    """Something that is closed, and says if that could not be."""

    @abstractmethod
    def close(self) -> None:
        """Close it; raises an `Error` if the broker could not be told."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Error:
            # What went wrong in the block says more.
            if error is None:
                raise
