"""What each kind brings to the command line, by its name: no other module here knows one kind from another."""

from __future__ import annotations

from collections.abc import Mapping

from broker.kinds import folders
from broker.kinds.client import KindClient

CLIENTS: Mapping[str, KindClient] = {name: module.CLIENT for name, module in folders.modules("client").items()}


def client_of(kind: str | None) -> KindClient:
    """How credentials of a kind are used; of one that only a newer server knows, as one that brings nothing."""
    return CLIENTS.get(kind or "", KindClient())
