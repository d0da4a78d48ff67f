"""Looking at a new slice's row filters before it is kept, by what was last read of its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.base.database import Transaction
from broker.kinds.discovery import kinds
from broker.models import CatalogueTable


def checked(tx: Transaction, kind: str, binding: Mapping[str, Any]) -> dict[str, Any]:
    """A binding with its filters' values as their columns' types say, where its table was read.

    Elsewhere they are judged when the slice is registered, and it fails.

    Raises:
        Invalid: a value means nothing, or not one thing exactly, beside its column.
    """
    if not kinds[kind].has_catalogue or not binding["rows"]:
        return dict(binding)
    found = tx.get(CatalogueTable, (binding["connection"], binding["schema"], binding["table"]))
    return dict(kinds[kind].with_column_types(binding, found.columns) if found else binding)
