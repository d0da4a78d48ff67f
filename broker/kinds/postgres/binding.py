"""How a slice's binding becomes a query of PostgreSQL: columns' types, names quoted by the driver, literals beside it.

Every user of a database can read the definitions of its views and functions. So no literal of a row filter stands in
one: they lie in a table of their own, one row, each in a column of its type, which only the registrar reads. One that
does not mean one thing exactly beside its column is `Invalid`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from broker.kinds.tables.binding import RowFilter, TableBinding
from broker.kinds.tables.filter_values import ColumnType, Exact, Family, exact

# For a query on pg_attribute `a`: what `PostgresColumn.read` takes, a domain's being those of the type below it.
SELECTED = """base.named, base.labels, coalesce(quote_ident(home.nspname) || '.' || quote_ident(letters.collname), ''),
         coalesce(letters.collisdeterministic, true)"""
JOINED = """
    LEFT JOIN LATERAL (
      WITH RECURSIVE under AS (
        SELECT t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype
          FROM under JOIN pg_type t ON under.typtype = 'd' AND t.oid = under.typbasetype)
      SELECT CASE WHEN typtype = 'e' THEN 'enum' WHEN typname = 'citext' THEN 'citext'
                  WHEN typnamespace = 'pg_catalog'::regnamespace THEN typname::text ELSE '' END AS named,
             (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
                FROM pg_enum e WHERE e.enumtypid = under.oid) AS labels
        FROM under WHERE typtype <> 'd') base ON true
    LEFT JOIN pg_catalog.pg_collation letters ON letters.oid = a.attcollation
    LEFT JOIN pg_catalog.pg_namespace home ON home.oid = letters.collnamespace
"""
_FAMILIES: dict[str, Family] = {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "numeric": "numeric",
    "float4": "real",
    "float8": "double",
    "bool": "boolean",
    "text": "text",
    "varchar": "text",
    "name": "text",
    "citext": "text",
    "bpchar": "padded",
    "enum": "enum",
    "uuid": "uuid",
    "bytea": "bytes",
    "date": "date",
    "timestamp": "moment",
    "timestamptz": "zoned",
    "time": "time",
}
_BITS = {"int2": 16, "int4": 32, "int8": 64}
_LETTERS = frozenset({"text", "padded", "enum"})
_PLAIN = {"text": "text", "varchar": "text", "bpchar": "bpchar"}


@dataclass(frozen=True, slots=True)
class PostgresColumn:
    """A column's type. `base` is PostgreSQL's own name for it.

    `collation` is that of a text, quoted by PostgreSQL; `deterministic`: only equal texts are the same by it.
    """

    type: ColumnType
    base: str
    collation: str = ""
    deterministic: bool = True

    @classmethod
    def read(
        cls, name: str, base: str, labels: Sequence[str] | None, collation: str = "", deterministic: bool = True
    ) -> PostgresColumn:
        """A type from what a query with `SELECTED` answered; `name` is how people know it."""
        bits = _BITS.get(base)
        least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if bits else (None, None)
        family = _FAMILIES.get(base, "none")
        return cls(ColumnType(name, family, least, most, tuple(labels or ())), base, collation, deterministic)

    def compared(self, column: sql.Composable, operator: str) -> sql.Composable:
        """The left side of a condition on a column of this type, its right side being of `literal_type`.

        Texts are the same if their characters are, and sort by them, as in MariaDB.
        """
        if self.type.family not in _LETTERS or self._plain(operator):
            return column
        return sql.SQL('CAST({} AS pg_catalog.text) COLLATE "C"').format(column)

    def literal_type(self, operator: str, values: Sequence[Exact]) -> sql.Composable:
        """What literals beside such a column are cast to: never a type with a length or scale, which cuts or rounds."""
        if self.type.family in _LETTERS:
            return _named(_PLAIN[self.base] if self._plain(operator) else "text")
        # A fraction beside whole numbers is compared as what it is, not rounded to one.
        whole = self.type.family != "integer" or all(isinstance(value, int) for value in values)
        return _named(self.base if whole else "numeric")

    def collated(self, operator: str) -> sql.Composable:
        """What the definition of a column for such literals ends in, so that it has the collation of this one."""
        if self.type.family in _LETTERS and self.collation and self._plain(operator):
            return sql.SQL(" COLLATE {}").format(sql.SQL(self.collation))
        return sql.SQL("")

    def _plain(self, operator: str) -> bool:
        """Whether PostgreSQL calls the same only what is, and has indexes for that."""
        return operator in ("=", "<>", "in") and self.deterministic and self.base in _PLAIN


def _named(base: str) -> sql.Composable:
    return sql.Identifier("pg_catalog", base)


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
        """
        numbered = enumerate(self.rows, start=1)
        return [_literal(f"f{number}", row, types[row.column]) for number, row in numbered if row.values]

    def select(self, types: Mapping[str, PostgresColumn], table: sql.Identifier | None = None) -> sql.Composed:
        """The query that shows the slice's rows.

        Args:
            types: the type of every column.
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
