"""How a slice's binding becomes a query of PostgreSQL, identifiers quoted by the driver, literals beside the query.

Every user of a database can read the definitions of its views and functions. So no literal of a row filter stands in
one: they lie in a table of their own, one row, each in a column of its type, which only the registrar reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from broker.kinds.postgres.types import PostgresColumn
from broker.kinds.tables.binding import RowFilter, TableBinding
from broker.kinds.tables.filter_values import Exact, exact


@dataclass(frozen=True, slots=True)
class FilterLiteral:
    """The literal of one row filter: the column of the literals' table it lies in, that column's type, and its values.

    `many`: the type is an array of `type`; else there is one value.
    """

    name: str
    type: sql.Composable
    collation: sql.Composable
    values: tuple[Exact, ...]
    many: bool

    @property
    def column(self) -> sql.Composed:
        """The column as `CREATE TABLE` defines it."""
        full = sql.SQL("{}[]").format(self.type) if self.many else self.type
        return sql.SQL("{} {}{}").format(sql.Identifier(self.name), full, self.collation)

    @property
    def expression(self) -> sql.Composable:
        """The value as an expression of that type. PostgreSQL refuses what is none of it."""
        # As text, which each type reads exactly.
        written = [sql.SQL("CAST({} AS {})").format(sql.Literal(str(value)), self.type) for value in self.values]
        return sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(written)) if self.many else written[0]


@dataclass(frozen=True, slots=True)
class PostgresBinding(TableBinding):
    """A table of PostgreSQL's."""

    # The system's, and our own: a slice of a slice would hang on a view that is remade, and a guest sees none of them.
    not_data = re.compile("pg_.*|information_schema|slices|slices_private|guestkey_ops")

    def literals(self, types: Mapping[str, PostgresColumn]) -> list[FilterLiteral]:
        """The literals of the row filters, typed to be compared with their columns.

        Args:
            types: the type of every column.

        Raises:
            Invalid: a literal does not mean one thing exactly beside its column.
        """
        numbered = enumerate(self.rows, start=1)
        return [_literal(f"f{number}", row, types[row.column]) for number, row in numbered if row.values]

    def select(self, types: Mapping[str, PostgresColumn], table: sql.Identifier | None = None) -> sql.Composed:
        """The query that shows the slice's rows.

        Args:
            types: the type of every column.
            table: where the literals lie; None writes them into the query itself, which must then be kept from guests.

        Raises:
            Invalid: a literal does not mean one thing exactly beside its column.
        """
        query = sql.SQL("SELECT {} FROM {} t").format(
            sql.SQL(", ").join(sql.Identifier("t", column) for column in self.columns),
            sql.Identifier(self.schema, self.table),
        )
        if not self.rows:
            return query
        literals = {literal.name: literal for literal in self.literals(types)}
        conditions = (
            _condition(row, types[row.column], literals.get(f"f{number}"), table)
            for number, row in enumerate(self.rows, start=1)
        )
        return query + sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)


def _literal(name: str, row: RowFilter, type_: PostgresColumn) -> FilterLiteral:
    values = tuple(exact(row.column, type_.type, row.operator, value) for value in row.values)
    literal_type = type_.literal_type(row.operator, values)
    return FilterLiteral(name, literal_type, type_.collated(row.operator), values, row.operator == "in")


def _condition(
    row: RowFilter, type_: PostgresColumn, literal: FilterLiteral | None, table: sql.Identifier | None
) -> sql.Composable:
    column = sql.Identifier("t", row.column)
    if literal is None:
        return sql.SQL("{} {}").format(column, sql.SQL("IS NULL" if row.operator == "is_null" else "IS NOT NULL"))
    value: sql.Composable = literal.expression
    if table is not None:
        value = sql.SQL("(SELECT {} FROM {} l)").format(sql.Identifier("l", literal.name), table)
    left = type_.compared(column, row.operator)
    if literal.many:
        # Cast it is one array to look in; a bare subquery would be rows to compare with.
        return sql.SQL("{} = ANY (CAST({} AS {}[]))").format(left, value, literal.type)
    return sql.SQL("{} {} {}").format(left, sql.SQL(row.operator), value)
