"""How a slice's binding becomes a query of PostgreSQL, identifiers quoted by the driver, literals beside the query.

Every user of a database can read the definitions of its views and functions. So no literal of a row filter stands in
one: they lie in a table of their own, one row, each in a column of its type, which only the registrar reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from broker.credentials.table_binding import Literal_, RowFilter, TableBinding
from broker.errors import Invalid

_INTEGERS = frozenset({"smallint", "integer", "bigint"})
_FRACTIONS = frozenset({"numeric", "real", "double precision"})


@dataclass(frozen=True, slots=True)
class FilterLiteral:
    """The literal of one row filter: the column of the literals' table it lies in, that column's type, and its values.

    `many`: the type is an array of `type`; else there is one value.
    """

    name: str
    type: str
    values: tuple[Literal_, ...]
    many: bool

    @property
    def column(self) -> sql.Composed:
        """The column as `CREATE TABLE` defines it."""
        return sql.SQL("{} {}").format(sql.Identifier(self.name), self._full_type)

    @property
    def expression(self) -> sql.Composable:
        """The value as an expression of that type. PostgreSQL refuses what is none of it."""
        # As text, which each type reads exactly; the type's name is PostgreSQL's own, quoted by it.
        written = [sql.SQL("CAST({} AS {})").format(sql.Literal(_text(v)), sql.SQL(self.type)) for v in self.values]
        return sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(written)) if self.many else written[0]

    @property
    def _full_type(self) -> sql.SQL:
        return sql.SQL(f"{self.type}[]" if self.many else self.type)


@dataclass(frozen=True, slots=True)
class PostgresBinding(TableBinding):
    """A table of PostgreSQL's."""

    # The system's, and our own: a slice of a slice would hang on a view that is remade, and a guest sees none of them.
    not_data = re.compile("pg_.*|information_schema|slices|slices_private|guestkey_ops")

    def literals(self, types: Mapping[str, str]) -> list[FilterLiteral]:
        """The literals of the row filters, typed to be compared with their columns.

        Args:
            types: PostgreSQL's name for the type of every column.

        Raises:
            Invalid: one filter mixes literals of several types.
        """
        found = []
        for number, row in enumerate(self.rows, start=1):
            if row.value is None:
                continue
            values = row.value if isinstance(row.value, tuple) else (row.value,)
            found.append(
                FilterLiteral(f"f{number}", _type(row, values, types[row.column]), values, row.operator == "in")
            )
        return found

    def select(self, types: Mapping[str, str], table: sql.Identifier | None = None) -> sql.Composed:
        """The query that shows the slice's rows.

        Args:
            types: PostgreSQL's name for the type of every column.
            table: where the literals lie; None writes them into the query itself, which must then be kept from guests.
        """
        query = sql.SQL("SELECT {} FROM {} t").format(
            sql.SQL(", ").join(sql.Identifier("t", column) for column in self.columns),
            sql.Identifier(self.schema, self.table),
        )
        if not self.rows:
            return query
        literals = {literal.name: literal for literal in self.literals(types)}
        conditions = (
            _condition(row, literals.get(f"f{number}"), table) for number, row in enumerate(self.rows, start=1)
        )
        return query + sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)


def _condition(row: RowFilter, literal: FilterLiteral | None, table: sql.Identifier | None) -> sql.Composable:
    column = sql.Identifier("t", row.column)
    if literal is None:
        return sql.SQL("{} {}").format(column, sql.SQL("IS NULL" if row.operator == "is_null" else "IS NOT NULL"))
    value: sql.Composable = literal.expression
    if table is not None:
        value = sql.SQL("(SELECT {} FROM {} l)").format(sql.Identifier("l", literal.name), table)
    if literal.many:
        # Cast it is one array to look in; a bare subquery would be rows to compare with.
        return sql.SQL("{} = ANY (CAST({} AS {}[]))").format(column, value, sql.SQL(literal.type))
    return sql.SQL("{} {} {}").format(column, sql.SQL(row.operator), value)


def _type(row: RowFilter, values: tuple[Literal_, ...], column: str) -> str:
    """The type to compare as: the column's, unless a number needs one that holds it or could not be compared at all."""
    kinds = {_kind(value) for value in values}
    if kinds <= {"integer", "fraction"}:
        if column in _FRACTIONS:
            return column
        return "bigint" if kinds == {"integer"} else "numeric"
    if kinds == {"boolean"}:
        return "boolean"
    if kinds == {"text"}:
        return column
    raise Invalid(
        f"The row filter of {row.column} mixes literals, some of them of another type.", field="/binding/rows"
    )


def _kind(value: Literal_) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "integer" if isinstance(value, int) else "fraction"


def _text(value: Literal_) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)
