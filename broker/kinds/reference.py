"""The kinds and their endings as the table of docs/kinds.md, which `make docs` writes anew."""

from __future__ import annotations

from pathlib import Path

from broker.kinds.base import Kind
from broker.kinds.discovery import kinds

PAGE = Path(__file__).resolve().parents[2] / "docs/kinds.md"
_BEGIN, _END = "<!-- made by `make docs` -->", "<!-- until here -->"


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
