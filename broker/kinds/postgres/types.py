"""Types of PostgreSQL's columns: what the catalogue says of them, and how values are compared with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from broker.kinds.tables.filter_values import ColumnType, Exact, Family

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
