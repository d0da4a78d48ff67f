"""The nouns of the API as the commands show them: `nouns.json`, made from the OpenAPI document by `make docs`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from guestkey.cli.output import Column
from guestkey.cli.output import columns as columns_of


@dataclass(frozen=True)
class ClientNoun:
    """A thing of the API that can be listed and shown.

    `group` and `list_as` are the command's words; `details` is empty where one alone is never shown. `filters` and
    `export_filters` are parameters of the API as OpenAPI has them; None: the list cannot be exported.
    """

    name: str
    group: str
    list_as: str
    about: str
    path: str
    key: str
    columns: str
    details: str
    none: str
    list_about: str
    export_about: str
    filters: Sequence[Mapping[str, Any]]
    export_filters: Sequence[Mapping[str, Any]] | None
    formats: Sequence[str]

    @cached_property
    def listed(self) -> tuple[Column, ...]:
        """The columns of its list."""
        return columns_of(self.columns)

    @cached_property
    def shown(self) -> tuple[Column, ...]:
        """The facts shown of one."""
        return columns_of(self.details)


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be done to a noun: a command whose arguments are the address's, and its options the body's.

    `said`: what is told when it worked; `{name}` is a field of the answer.
    """

    group: str
    name: str
    about: str
    method: str
    path: str
    arguments: Sequence[str]
    options: Sequence[Mapping[str, Any]]
    said: str


_SHIPPED: Mapping[str, Any] = json.loads((files("guestkey.cli") / "nouns.json").read_text())
NOUNS: Mapping[str, ClientNoun] = {noun["name"]: ClientNoun(**noun) for noun in _SHIPPED["nouns"]}
ACTS: Sequence[Act] = tuple(Act(**act) for act in _SHIPPED["acts"])
