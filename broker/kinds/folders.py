"""Finds the folders of the kinds: a new kind is a new folder here, and no line elsewhere names it."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from broker import kinds

# Every kind has this one. A folder without it holds what kinds share.
KIND = "kind"


def modules(part: str) -> dict[str, ModuleType]:
    """The module `part` of each kind that has one, by the kind's name, such as `broker.kinds.postgres.client`.

    Raises:
        ImportError: a module cannot be imported, or a folder has it and is no kind.
    """
    found = {}
    for folder in pkgutil.iter_modules(kinds.__path__):
        package = f"{kinds.__name__}.{folder.name}"
        if not folder.ispkg or find_spec(f"{package}.{part}") is None:
            continue
        if find_spec(f"{package}.{KIND}") is None:
            raise ImportError(f"{package} has a {part}.py and no {KIND}.py")
        found[folder.name] = import_module(f"{package}.{part}")
    return found
