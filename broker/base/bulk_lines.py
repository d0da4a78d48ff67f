"""Many single acts from the lines of a file: each in a transaction of its own, through what one act alone goes through.

Nothing here decides: a line is refused for what would refuse the same act by hand. The same file sent again finds
what it did before, so a run that was cut short is repeated as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from broker.base.csv_lines import Row
from broker.base.database import Database, Transaction, clock
from broker.base.errors import BackendDown, Conflict, GuestkeyError, Invalid

REFUSED = "refused"
LEFT_OUT = "left_out"
# Outcomes that begin so found what was there before.
ALREADY = "already_"


@dataclass(frozen=True, slots=True)
class Line:
    """What became, or would become, of one line.

    `about` names it for people; `key` is the same for lines that mean the same. `id` is of what was made or found,
    `token` a secret that is handed out this once. Refused: `code`, `detail`, `advice` and the cell's column say why.
    """

    number: int
    outcome: str
    about: str = ""
    key: str = ""
    id: str = ""
    token: str = field(default="", repr=False)
    expires_at: datetime | None = None
    code: str = ""
    detail: str = ""
    advice: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True)
class BulkReport:
    """A line for each line; `dry_run`: nothing was written."""

    lines: Sequence[Line]
    dry_run: bool

    @property
    def counts(self) -> Mapping[str, int]:
        """How many lines came to which outcome."""
        return Counter(line.outcome for line in self.lines)

    @property
    def refused(self) -> int:
        """How many lines were refused."""
        return self.counts.get(REFUSED, 0)


@dataclass(frozen=True, slots=True)
class Task:
    """What is done with each line: `key` names what it is about, `act` does it."""

    key: Callable[[Row], tuple[str, str]]
    act: Callable[[Transaction, Row, datetime], Line]


def run(database: Database, rows: Sequence[Row], task: Task, *, dry_run: bool, keep_going: bool) -> BulkReport:
    """Do every line, or say what doing it would come to.

    Args:
        dry_run: write nothing.
        keep_going: do what can be done although other lines are refused; otherwise one refused line stops them all.
    """
    if dry_run or not keep_going:
        report = BulkReport(_done(database, rows, task, dry_run=True), dry_run)
        if dry_run:
            return report
        if report.refused:
            return BulkReport([_left_out(line) for line in report.lines], dry_run=False)
    return BulkReport(_done(database, rows, task, dry_run=False), dry_run=False)


def _done(database: Database, rows: Sequence[Row], task: Task, *, dry_run: bool) -> list[Line]:
    lines: list[Line] = []
    seen: dict[str, int] = {}
    down: BackendDown | None = None
    for row in rows:
        if down is not None:
            lines.append(_refused(row, down, outcome=LEFT_OUT))
            continue
        try:
            lines.append(_one(database, row, task, seen, dry_run=dry_run))
        except BackendDown as error:
            # What was done so far may carry links that are shown only once: they are handed out all the same.
            down = error
            lines.append(_refused(row, error, outcome=LEFT_OUT))
        except GuestkeyError as error:
            lines.append(_refused(row, error))
    return lines


def _one(database: Database, row: Row, task: Task, seen: dict[str, int], *, dry_run: bool) -> Line:
    if row.fault is not None:
        raise row.fault
    key, about = task.key(row)
    first = seen.setdefault(key, row.number)
    if first != row.number:
        raise Conflict(f"This is the same as line {first}.", advice="Remove one of the two.", code="duplicate_line")
    with database.transaction() as tx:
        line = task.act(tx, row, clock(tx))
        if dry_run:
            tx.rollback()
    if dry_run and not line.outcome.startswith(ALREADY):
        line = replace(line, token="", id="", expires_at=None)
    return replace(line, key=key, about=about)


def _refused(row: Row, error: GuestkeyError, *, outcome: str = REFUSED) -> Line:
    column = error.field.removeprefix("/") if isinstance(error, Invalid) else ""
    about = " · ".join(text for text in row.cells.values() if text)
    about = "".join(character for character in about if character.isprintable())[:120]
    return Line(row.number, outcome, about, "", "", "", None, error.code, error.detail, error.advice, column)


def _left_out(line: Line) -> Line:
    kept = line.outcome == REFUSED or line.outcome.startswith(ALREADY)
    return line if kept else replace(line, outcome=LEFT_OUT)
