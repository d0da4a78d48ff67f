"""What is used in `with`: closed after the block, and never at the price of what went wrong inside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

from guestkey.errors import Error

if TYPE_CHECKING:
    from typing import Self


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
