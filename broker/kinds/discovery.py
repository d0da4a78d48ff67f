"""The kinds of credentials this server serves: `KIND` of every folder's `kind.py`; and their table in docs/kinds.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker.kinds import folders
from broker.kinds.base import Kind

PAGE = Path(__file__).resolve().parents[2] / "docs/kinds.md"
_BEGIN, _END = "<!-- made by `make docs` -->", "<!-- until here -->"


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


def table() -> str:
    """Every kind in the order they are offered, with what it declares of its ending; Markdown."""
    head = "| kind | for | actions | you bring | new use refused | open use ended | worst case | how |"
    return "\n".join([head, "|---" * 8 + "|", *(_row(kind) for kind in kinds.values())])


def with_table(page: str) -> str:
    """The page with the table as it should be.

    Raises:
        ValueError: the page has no place for it.
    """
    before, _, rest = page.partition(_BEGIN)
    _, marked, after = rest.partition(_END)
    if not marked:
        raise ValueError(f"{PAGE.name} needs the lines {_BEGIN!r} and {_END!r}")
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def _row(kind: Kind) -> str:
    ending = kind.ending
    worst = "its own expiry" if ending.worst_case is None else f"{ending.worst_case} s past its end"
    cells = (
        f"[`{kind.name}`](#{kind.name})",
        kind.use.about,
        ", ".join(sorted(kind.actions)),
        kind.proof.label if kind.proof else "nothing",
        f"{ending.new_sessions} s",
        f"{ending.open_sessions} s",
        worst,
        ending.how,
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
