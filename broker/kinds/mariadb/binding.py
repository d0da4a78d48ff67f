"""How a slice's binding becomes a query of MariaDB, which means the same whatever a guest's session is set to.

A literal that does not mean one thing exactly beside its column is `Invalid`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from broker.base.errors import Invalid
from broker.kinds.tables.binding import RowFilter, TableBinding
from broker.kinds.tables.filter_values import FIELD, ColumnType, Exact, Family, exact, plain

_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_FAMILIES: dict[str, Family] = {
    **dict.fromkeys(_BITS, "integer"),
    "year": "integer",
    "decimal": "numeric",
    "float": "real",
    "double": "double",
    **dict.fromkeys(("varchar", "tinytext", "text", "mediumtext", "longtext"), "text"),
    "char": "padded",
    "enum": "enum",
    "date": "date",
    "datetime": "moment",
    "timestamp": "zoned",
}
_LABEL = re.compile(r"'((?:[^']|'')*)'")
# Of a decimal literal: digits in all, and behind the point.
_DIGITS, _SCALE = 65, 38


@dataclass(frozen=True, slots=True)
class MariadbColumn:
    """A column's type: MariaDB's name for it, and the collation of a text."""

    type: ColumnType
    base: str
    collation: str

    @classmethod
    def read(cls, base: str, whole: str, collation: str) -> MariadbColumn:
        """A type from `data_type`, `column_type` and `collation_name` of `information_schema.columns`."""
        base, family = base.lower(), _FAMILIES.get(base.lower(), "none")
        least, most = _range(base, unsigned="unsigned" in whole.lower())
        labels = tuple(label.replace("''", "'") for label in _LABEL.findall(whole)) if family == "enum" else ()
        return cls(ColumnType(base, family, least, most, labels), base, collation)

    def compared(self, column: str, operator: str, values: Sequence[Exact]) -> tuple[str, list[Any]]:
        """A condition on a column, and its literals."""
        quoted = _quoted(column)
        if self.type.family in ("text", "padded", "enum"):
            return self._text_compared(quoted, operator, values)
        literal, given = "%s", [_literal(column, self.type, value) for value in values]
        match self.type.family:
            case "date":
                literal = "DATE %s"
            case "moment":
                literal = "TIMESTAMP %s"
            case "zoned":
                # Compared as seconds: else the time zone of a guest's session would move the border.
                quoted = f"UNIX_TIMESTAMP({quoted})"
        return _compared(quoted, operator, literal, len(given)), given

    def _text_compared(self, quoted: str, operator: str, values: Sequence[Exact]) -> tuple[str, list[Any]]:
        # A char is padded or not as the session that reads it says.
        unpadded = f"TRIM(TRAILING ' ' FROM {quoted})" if self.type.family == "padded" else quoted
        # Collations call 'Acme', 'acme' and 'acme ' the same. Bytes tell them apart; an index serves only the former.
        left = f"CAST(CONVERT({unpadded} USING utf8mb4) AS BINARY)"
        same = _compared(left, operator, "CAST(%s AS BINARY)", len(values))
        if operator not in ("=", "in"):
            return same, list(values)
        letters = self.collation.partition("_")[0]
        literal = f"CONVERT(%s USING {letters}) COLLATE {self.collation}"
        alike = _compared(quoted, operator, literal, len(values))
        return f"{alike} AND {same}", [*values, *values]


@dataclass(frozen=True, slots=True)
class MariadbBinding(TableBinding):
    """A table of MariaDB's, where a schema is a database."""

    not_data = re.compile("mysql|sys|information_schema|performance_schema|guestkey_.*")

    def select(self, types: Mapping[str, MariadbColumn], *, of_one_row: bool = False) -> tuple[str, list[Any]]:
        """The query behind the slice's view, and the literals the driver puts into it.

        Args:
            types: the type of every column.
            of_one_row: ask a single row of the table, for trying the filters at no cost.
        """
        table = f"{_quoted(self.schema)}.{_quoted(self.table)}"
        if of_one_row:
            table = f"(SELECT {', '.join(map(_quoted, sorted(self.named)))} FROM {table} LIMIT 1) AS one"  # noqa: S608
        query = f"SELECT {', '.join(map(_quoted, self.columns))} FROM {table}"  # noqa: S608  names, all of them quoted
        if not self.rows:
            return query, []
        conditions, literals = zip(*(_condition(row, types[row.column]) for row in self.rows), strict=True)
        return f"{query} WHERE {' AND '.join(conditions)}", [value for some in literals for value in some]


def _condition(row: RowFilter, column: MariadbColumn) -> tuple[str, list[Any]]:
    if not row.values:
        return f"{_quoted(row.column)} IS {'NOT ' * (row.operator == 'not_null')}NULL", []
    values = [exact(row.column, column.type, row.operator, value) for value in row.values]
    return column.compared(row.column, row.operator, values)


def _quoted(name: str) -> str:
    # Names were let in as letters, digits and _ only.
    return f"`{name}`"


def _compared(what: str, operator: str, literal: str, count: int) -> str:
    return f"{what} {operator} ({', '.join([literal] * count)})"


def _range(base: str, *, unsigned: bool) -> tuple[int | None, int | None]:
    if base == "year":
        return 0, 2155
    bits = _BITS.get(base)
    if bits is None:
        return None, None
    return (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _literal(column: str, type_: ColumnType, value: Exact) -> Any:
    """As the driver writes it: decimal numbers without an exponent, which would make them floats."""
    if type_.name == "year" and value != 0 and not (isinstance(value, int) and value > 1900):
        raise Invalid(f"{column} is a year: 1901 to 2155, or 0.", field=FIELD)
    if type_.family == "zoned":
        # Seconds since 1970, exactly.
        at = datetime.fromisoformat(str(value))
        return int(at.replace(microsecond=0).timestamp()) + Decimal(at.microsecond) / 1_000_000
    if isinstance(value, Decimal):
        digits = plain(value)
        whole, _, fraction = digits.lstrip("-").partition(".")
        if len(whole) + len(fraction) > _DIGITS or len(fraction) > _SCALE:
            raise Invalid(f"A number beside {column} has more digits than MariaDB compares.", field=FIELD)
        return Decimal(digits)
    if isinstance(value, int) and not isinstance(value, bool) and len(str(abs(value))) > _DIGITS:
        raise Invalid(f"A number beside {column} has more digits than MariaDB compares.", field=FIELD)
    return value
