"""The kinds of credentials, one file each. A new kind is one new file and one line here."""

from __future__ import annotations

from broker.credentials.base import Kind
from broker.credentials.postgres import PostgresKind
from broker.credentials.token import TokenKind

kinds: dict[str, Kind] = {kind.name: kind for kind in (PostgresKind(), TokenKind())}

__all__ = ["kinds"]
