"""How a slice's binding becomes a query of PostgreSQL, identifiers and literals quoted by the driver."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg import sql

from broker.credentials.table_binding import RowFilter, TableBinding


@dataclass(frozen=True, slots=True)
class PostgresBinding(TableBinding):
    """A table of PostgreSQL's."""

    # The system's, and our own: a slice of a slice would hang on a view that is remade, and a guest sees none of them.
    not_data = re.compile("pg_.*|information_schema|slices|guestkey_ops")

    def select(self) -> sql.Composed:
        """The query behind the slice's view."""
        query = sql.SQL("SELECT {} FROM {}.{}").format(
            sql.SQL(", ").join(sql.Identifier(column) for column in self.columns),
            sql.Identifier(self.schema),
            sql.Identifier(self.table),
        )
        if not self.rows:
            return query
        return query + sql.SQL(" WHERE ") + sql.SQL(" AND ").join(_condition(row) for row in self.rows)


def _condition(row: RowFilter) -> sql.Composable:
    column = sql.Identifier(row.column)
    if row.operator == "is_null":
        return sql.SQL("{} IS NULL").format(column)
    if row.operator == "not_null":
        return sql.SQL("{} IS NOT NULL").format(column)
    if isinstance(row.value, tuple):
        values = sql.SQL(", ").join(sql.Literal(value) for value in row.value)
        return sql.SQL("{} IN ({})").format(column, values)
    return sql.SQL("{} {} {}").format(column, sql.SQL(row.operator), sql.Literal(row.value))
