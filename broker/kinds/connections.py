"""What a kind's `connection.py` says: what `GUESTKEY_<KIND>_CONNECTIONS` holds for each connection by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


def _alone(connections: Mapping[str, Any], public_url: str) -> None:
    """Each connection stands for itself."""


@dataclass(frozen=True, slots=True)
class ConnectionSetting:
    """The setting of a kind; it is called `SETTING` in `connection.py`.

    `check` completes connections that depend on one another or on the broker's own address, and raises ValueError.
    """

    model: type[BaseModel]
    description: str
    check: Callable[[Mapping[str, Any], str], None] = _alone
