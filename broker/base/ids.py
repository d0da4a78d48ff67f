"""Identifiers of records: sortable, opaque, lower case, safe in role names, paths and URLs."""

from __future__ import annotations

import re
from datetime import datetime

from ulid import ULID

ID_PATTERN = re.compile(r"[a-z]{1,8}_[0-9a-z]{26}|l[0-9a-z]{26}")


def new_id(prefix: str) -> str:
    """A fresh id `<prefix>_<26 characters>`: a ULID in lower case, so ids sort by their making."""
    return f"{prefix}_{str(ULID()).lower()}"


def first_id(prefix: str, moment: datetime) -> str:
    """What sorts before every id of that prefix made from `moment` on: a way to ask for the newest by their key."""
    return f"{prefix}_{str(ULID.from_datetime(moment)).lower()[:10]}"


def new_lease_id() -> str:
    """A fresh lease id, `l` and 26 characters: no underscore, because backends fold punctuation."""
    return f"l{str(ULID()).lower()}"


def is_id(text: str) -> bool:
    """Whether the text has the form of an id; anything else cannot name a record."""
    return ID_PATTERN.fullmatch(text) is not None
