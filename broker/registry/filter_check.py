"""Looking at a new slice's row filters before it is kept, by what was last read of its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.base.database import Transaction
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.types import PostgresColumn
from broker.kinds.tables.filter_values import ColumnType
from broker.models import CatalogueTable

_READ = "postgres"


def types_of(found: CatalogueTable) -> dict[str, ColumnType]:
    """The types of a table's columns, as far as filters can be judged by them; those read long ago lack some."""
    types = {}
    for column in found.columns:
        base, labels = column.get("base"), column.get("labels")
        if base is not None and (base != "enum" or labels):
            types[column["name"]] = PostgresColumn.read(column["type"], base, labels, deterministic=True).type
    return types


def checked(tx: Transaction, kind: str, binding: Mapping[str, Any]) -> dict[str, Any]:
    """A binding with its filters' values as their columns' types say, where its table was read.

    Elsewhere they are judged when the slice is registered, and it fails.

    Raises:
        Invalid: a value means nothing, or not one thing exactly, beside its column.
    """
    if kind != _READ or not binding["rows"]:
        return dict(binding)
    found = tx.get(CatalogueTable, (binding["connection"], binding["schema"], binding["table"]))
    return PostgresBinding.parse(binding).with_types(types_of(found)).canonical() if found else dict(binding)
