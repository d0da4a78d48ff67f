"""What all records share: the declarative base, naming of constraints, and the columns every table repeats."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import DateTime, Index, MetaData, String, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

SCHEMA = "guestkey"

Id = Annotated[str, mapped_column(String(40))]
Key = Annotated[str, mapped_column(String(40), primary_key=True)]
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())]
Word = Annotated[str, mapped_column(String(64))]
Prose = Annotated[str, mapped_column(Text)]


class HolderColumns:
    """What a person, a team or a service holds or asks for; the columns beside each other, of which one is set."""

    @property
    def holder(self) -> str:
        """Who holds it, prefixed: `person:…`, `team:…` or `service:…`."""
        for kind in ("team", "service", "person"):
            if id_ := getattr(self, f"{kind}_id", None):
                return f"{kind}:{id_}"
        return ""

    @property
    def holder_id(self) -> str:
        """The same without what it is."""
        return self.holder.rpartition(":")[2]


class Base(DeclarativeBase):
    """The base of every record; constraints get names, so that migrations can address them."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map = {dict[str, Any]: JSONB, list[Any]: JSONB, list[str]: JSONB}  # noqa: RUF012


def one_of(column: str, *words: str) -> str:
    """The SQL of a check that a text column holds one of a closed set of words."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


def begins(table: str, column: str) -> Index:
    """The index by which names are found from their beginning, in any case."""
    beginning = func.lower(text(column)).label("beginning")
    return Index(f"ix_{table}_{column}_begins", beginning, postgresql_ops={"beginning": "text_pattern_ops"})
