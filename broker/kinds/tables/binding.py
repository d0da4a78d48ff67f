"""Where a slice lives in a database of tables: one table, some of its columns, and a filter on rows. Never SQL.

Each database renders it in its own words; what may be said is the same for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

from broker.base.errors import Invalid
from broker.kinds.names import connection_of
from broker.kinds.tables.filter_values import ColumnType, Stored, canonical, stored

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
OPERATORS = (*COMPARISONS, "in", "is_null", "not_null")
Column = TypeVar("Column")
_MOST_FILTERS = 20
_MOST_VALUES = 1000


@dataclass(frozen=True, slots=True)
class RowFilter:
    """One condition on rows: column, operator, literal. All conditions of a slice must hold."""

    column: str
    operator: str
    value: Stored | tuple[Stored, ...] | None = None

    @property
    def values(self) -> tuple[Stored, ...]:
        """The literals it compares with: none, one, or those of a list."""
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)


@dataclass(frozen=True, slots=True)
class TableBinding:
    """A validated binding, made by `parse` only. A database says which names are its own and never data."""

    not_data: ClassVar[re.Pattern[str]]

    connection: str
    schema: str
    table: str
    columns: tuple[str, ...]
    rows: tuple[RowFilter, ...]
    # Guests' own conditions are planned together with the row filter: what that tells of hidden rows is in SECURITY.md.
    fast: bool = False

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Validate a binding as it comes from outside or from a record.

        Args:
            raw: `{connection, schema, table, columns: [name], rows: [[column, operator, literal]]}`, and
                `fast: true` where queries may use indexes at the price of telling of hidden rows.

        Raises:
            Invalid: naming the field that is unknown, malformed or could widen the slice.
        """
        connection = connection_of(raw, "schema", "table", "columns", "rows", "fast")
        columns = raw.get("columns")
        if not isinstance(columns, list | tuple) or not columns or len(columns) > 1600:
            raise Invalid("A slice needs at least one column.", field="/binding/columns")
        names = tuple(cls._identifier(column, "/binding/columns") for column in columns)
        if len(set(names)) != len(names):
            raise Invalid("A column is given twice.", field="/binding/columns")
        rows = raw.get("rows", [])
        if not isinstance(rows, list | tuple) or len(rows) > _MOST_FILTERS:
            raise Invalid(f"A slice has at most {_MOST_FILTERS} row filters.", field="/binding/rows")
        if not isinstance(raw.get("fast", False), bool):
            raise Invalid("`fast` is true or false.", field="/binding/fast")
        return cls(
            connection=connection,
            schema=cls._identifier(raw.get("schema"), "/binding/schema"),
            table=cls._identifier(raw.get("table"), "/binding/table"),
            columns=names,
            rows=tuple(cls._row_filter(row) for row in rows),
            fast=raw.get("fast", False),
        )

    def canonical(self) -> dict[str, Any]:
        """The binding as JSON, the way it is kept."""
        kept = asdict(self)
        if not self.fast:
            del kept["fast"]
        kept["columns"] = list(self.columns)
        kept["rows"] = [
            [row.column, row.operator, list(row.value) if isinstance(row.value, tuple) else row.value]
            for row in self.rows
        ]
        return kept

    @property
    def named(self) -> frozenset[str]:
        """Every column it names: those it shows, and those its filters compare."""
        return frozenset({*self.columns, *(row.column for row in self.rows)})

    def of_readable(self, columns: Mapping[str, Column]) -> Mapping[str, Column]:
        """The columns of its table that a login may read, once they are seen to be all that it names.

        Raises:
            Invalid: the table or a column does not exist, or this login may not read it.
        """
        if not columns:
            raise Invalid(
                "There is no such table, or the registrar may not read it.",
                field="/binding/table",
                advice=f"GRANT SELECT ON {self.schema}.{self.table} TO guestkey_registrar, then try again.",
            )
        if missing := self.named - columns.keys():
            raise Invalid(
                f"The table has no column {', '.join(sorted(missing))}, or the registrar may not read it.",
                field="/binding/columns",
            )
        return columns

    def with_types(self, types: Mapping[str, ColumnType]) -> Self:
        """The same binding, its literals as they are kept for columns of these types; other columns' stay unread.

        Raises:
            Invalid: a literal does not mean one thing exactly beside its column.
        """
        return replace(self, rows=tuple(_typed(row, types.get(row.column)) for row in self.rows))

    @classmethod
    def nameable(cls, name: str) -> bool:
        """Whether a slice can name this schema, table or column at all."""
        return _IDENTIFIER.fullmatch(name) is not None and cls.not_data.fullmatch(name) is None

    @classmethod
    def _identifier(cls, name: object, field: str) -> str:
        if not isinstance(name, str) or _IDENTIFIER.fullmatch(name) is None:
            raise Invalid(
                "Names of schemas, tables and columns are lower case: letters, digits and _, up to 63.",
                field=field,
                advice="Rename it in the database, or make a view with such names.",
            )
        if not cls.nameable(name):
            raise Invalid("System schemas and tables cannot be part of a slice.", field=field)
        return name

    @classmethod
    def _row_filter(cls, raw: object) -> RowFilter:
        field = "/binding/rows"
        if not isinstance(raw, list | tuple) or not 2 <= len(raw) <= 3:
            raise Invalid("A row filter is [column, operator, literal].", field=field)
        column, operator = cls._identifier(raw[0], field), raw[1]
        value = raw[2] if len(raw) == 3 else None
        if operator not in OPERATORS:
            raise Invalid(f"Unknown operator; use one of {', '.join(OPERATORS)}.", field=field)
        if operator in ("is_null", "not_null"):
            if value is not None:
                raise Invalid(f"{operator} takes no literal.", field=field)
            return RowFilter(column, operator)
        if operator == "in":
            if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_VALUES:
                raise Invalid(f"`in` takes a list of 1 to {_MOST_VALUES} literals.", field=field)
            return RowFilter(column, operator, tuple(stored(item) for item in value))
        return RowFilter(column, operator, stored(value))


def _typed(row: RowFilter, type_: ColumnType | None) -> RowFilter:
    if type_ is None or row.value is None:
        return row
    values = tuple(canonical(row.column, type_, row.operator, value) for value in row.values)
    return replace(row, value=values if isinstance(row.value, tuple) else values[0])
