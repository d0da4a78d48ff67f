"""The kinds of credentials this server serves: `KIND` of every folder's `kind.py`."""

from __future__ import annotations

from collections.abc import Callable

from broker.kinds import folders
from broker.kinds.base import Kind


def discovered() -> dict[str, Kind]:
    """Every kind by its name, in the order they are offered.

    Raises:
        ImportError: a folder's `kind.py` cannot be used; the server does not start without one of its kinds.
    """
    found: dict[str, Kind] = {}
    for folder, module in folders.modules(folders.KIND).items():
        kind: Kind | None = getattr(module, "KIND", None)
        if kind is None or kind.name != folder:
            raise ImportError(f"{module.__name__} needs a KIND whose name is {folder!r}")
        found[folder] = kind
    return dict(sorted(found.items(), key=lambda item: item[1].position))


kinds: dict[str, Kind] = discovered()


def the_kind(which: Callable[[Kind], object]) -> Kind:
    """The one kind that is so.

    Raises:
        ImportError: none is, or several are; the server does not start then.
    """
    found = [kind for kind in kinds.values() if which(kind)]
    if len(found) != 1:
        raise ImportError(f"one kind is needed here, not {[kind.name for kind in found]}")
    return found[0]


def serving(slice_kind: str, action: str) -> list[Kind]:
    """The kinds a credential for a slice can be of: the slice's own first, then those that need no backend."""
    found = [kind for kind in kinds.values() if kind.name == slice_kind or not kind.at_backend]
    return sorted((kind for kind in found if action in kind.actions), key=lambda kind: kind.name != slice_kind)
