"""What a command prints: the result on standard output, everything else on standard error.

A table on a terminal, tab-separated and uncut in a pipe, one versioned JSON document with `--json`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from broker.kinds.client import moment
from guestkey.cli import reasons
from guestkey.cli.faults import Fault
from guestkey.cli.words import clock, duration, safe, safe_json

VERSION = 1
_BETWEEN = 2
_LONGEST_WORD = 13


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, and where the value lies in an item (`a.b`).

    On a terminal a time (`when`) is shown with its zone and relatively, a length of `seconds` in the largest units;
    in a pipe both are as the API has them. What is `whole` is never broken: ids, names and links that are copied.
    """

    heading: str
    path: str
    when: bool = False
    seconds: bool = False
    whole: bool = False


def columns(text: str) -> tuple[Column, ...]:
    """Columns from a short text: `heading=path` or just `path`, then `!` for whole, `@` for a time, `#` for seconds."""
    found = []
    for written in text.split(", "):
        bare = written.rstrip("!@#")
        marks, (heading, _, path) = written[len(bare) :], bare.partition("=")
        found.append(Column(heading, path or heading, when="@" in marks, seconds="#" in marks, whole="!" in marks))
    return tuple(found)


class Output:
    """The two streams of one command."""

    def __init__(self, command: str, *, as_json: bool, plain: bool = False) -> None:
        self.command = command
        self.as_json = as_json
        self._plain = plain
        # For whoever passes standard error on in one piece: an error is one line, and nothing else is said.
        self.terse = False
        self._out: TextIO = sys.stdout
        self._err: TextIO = sys.stderr

    def items(self, columns: Sequence[Column], items: Sequence[Mapping[str, Any]], *, none: str) -> None:
        """A list: rows, or the sentence `none` on standard error."""
        if self.as_json:
            self.document({"items": list(items)})
        elif not items:
            self.say(none)
        elif self._out.isatty():
            self._table(columns, items)
        else:
            self._lines("\t".join(safe(find(item, column.path)) for column in columns) for item in items)

    def facts(self, columns: Sequence[Column], item: Mapping[str, Any]) -> None:
        """One thing: a line for each fact that is known."""
        if self.as_json:
            self.document(item)
            return
        known = [(column, find(item, column.path)) for column in columns]
        known = [(column, value) for column, value in known if value not in (None, "", [], {})]
        if self._out.isatty():
            self._labelled([(column.heading, self._shown(column, value)) for column, value in known])
        else:
            self._lines(f"{column.heading}\t{safe(value)}" for column, value in known)

    def value(self, text: str) -> None:
        """Exactly one value, as it is."""
        self._lines([text])

    def bytes(self, pieces: Iterable[bytes]) -> int:
        """What the server wrote, as it comes; returns how much."""
        raw, written = self._out.buffer, 0
        for piece in pieces:
            written += raw.write(piece)
        raw.flush()
        return written

    def document(self, data: Any) -> None:
        """The one JSON document of this command."""
        self._lines([self.document_text(data)])

    def document_text(self, data: Any) -> str:
        """The same as text."""
        document = {"version": VERSION, "command": self.command, "data": data}
        return safe_json(json.dumps(document, ensure_ascii=False, indent=2 if self._out.isatty() else None))

    def done(self, sentence: str, data: Mapping[str, Any] | None = None) -> None:
        """A change that worked: a sentence on standard error, or the API's answer as JSON."""
        if self.as_json:
            self.document(data or {})
        else:
            self.say(sentence)

    def remark(self, text: str) -> None:
        """What a person may want to know beside the result; programs get documents only."""
        if not self.as_json and not self.terse:
            self.say(text)

    def alarm(self, text: str) -> None:
        """A remark nobody may overlook."""
        self.remark(self._red(text))

    def say(self, text: str) -> None:
        """What must be said beside the result, whoever reads."""
        print(text, file=self._err, flush=True)

    @property
    def overwrites(self) -> bool:
        """Whether a line of standard error may be written over."""
        return self._err.isatty() and not (self.as_json or self._plain) and os.environ.get("TERM") != "dumb"

    def overwrite(self, text: str) -> None:
        """Write over the line of standard error."""
        print(f"\r{text}", end="", file=self._err, flush=True)

    def ask(self, prompt: str) -> str:
        """One line from the person at the terminal.

        Raises:
            KeyboardInterrupt: standard input has ended.
        """
        print(prompt, end="", file=self._err, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        return line.strip()

    def fault(self, fault: Fault, *, about: str = "", typed: Mapping[str, str] | None = None) -> None:
        """An error: what, why, what next; every reason of a denial.

        Args:
            about: the dataset that was wanted.
            typed: how each field of the API is typed here, by its name.
        """
        if self.as_json:
            error = {"version": VERSION, "command": self.command, "error": fault.document()}
            self.say(safe_json(json.dumps(error, ensure_ascii=False)))
            return
        if self.terse:
            self.say(_in_one_line(fault))
            return
        self.say(self._red(f"Error: {safe(fault.what)}"))
        fields = mappings(fault.problem.get("errors"))
        # The API says the same in its sentence and field by field; once is enough.
        told = fault.why.rstrip(".") == fault.what.rstrip(".")
        if fault.why and not told and not any(str(field.get("detail")) in fault.why for field in fields):
            self.say(f"  {safe(fault.why)}")
        for field in fields:
            name = str(field.get("pointer") or "").lstrip("/")
            shown = (typed or {}).get(name, name)
            self.say(f"  {safe(shown)}: {safe(field.get('detail'))}" if shown else f"  {safe(field.get('detail'))}")
        decision = str(fault.problem.get("decision_id") or "")
        self.reasons(mappings(fault.problem.get("reasons")), about=about, decision=decision)
        if fault.command and fault.next_step:
            self.say(f"  → {safe(fault.next_step)}")
        if fault.command or fault.next_step:
            self.say(f"Next: {safe(fault.command or fault.next_step)}")
        status = fault.problem.get("status")
        if fault.problem.get("instance") and isinstance(status, int) and status >= 500:
            self.say(f"  Request id for the operator: {safe(fault.problem['instance'])}")

    def reasons(self, found: Sequence[Mapping[str, Any]], *, about: str = "", decision: str = "") -> None:
        """Why the gate said no, each with what to do about it, grouped by who can act."""
        for line in reasons.told(found, self.time, about, decision):
            self.say(line)

    def time(self, value: Any) -> str:
        """A time of the API as a person reads it."""
        when = moment(value) if isinstance(value, str) else None
        return clock(when, datetime.now(UTC)) if when else safe(value)

    @property
    def for_eyes(self) -> bool:
        """Whether the result goes to a terminal."""
        return self._out.isatty() and not self.as_json

    def _table(self, columns: Sequence[Column], items: Sequence[Mapping[str, Any]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # Without a system of colours nothing is written bold either.
        console = Console(file=self._out, highlight=False, color_system=None if no_color() else "auto")
        rows = [[self._shown(column, find(item, column.path)) for column in columns] for item in items]
        if _needed(columns, rows) > console.width:
            for number, row in enumerate(rows):
                self._lines([""] if number else [])
                self._labelled([(column.heading, shown) for column, shown in zip(columns, row, strict=True) if shown])
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.heading, overflow="fold", no_wrap=column.whole)
        for row in rows:
            table.add_row(*(Text(shown) for shown in row))
        console.print(table)

    def _labelled(self, facts: Sequence[tuple[str, str]]) -> None:
        width = max((len(heading) for heading, _ in facts), default=0)
        self._lines(f"{heading:<{width}}  {shown}" for heading, shown in facts)

    def _shown(self, column: Column, value: Any) -> str:
        if column.seconds and isinstance(value, float) and value < 60:
            return f"{value:.1f} s"
        if column.seconds and isinstance(value, int | float):
            return duration(int(value))
        return self.time(value) if column.when else safe(value)

    def _red(self, text: str) -> str:
        return text if no_color() or not self._err.isatty() else f"\x1b[31m{text}\x1b[0m"

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            print(line, file=self._out)
        self._out.flush()


class Progress:
    """How far long work is, on standard error: one line that is written over on a terminal, else a line a step."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._last = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._last and self._out.overwrites:
            self._out.say("")

    def tell(self, text: str) -> None:
        """Say how far it is; the same again is not repeated."""
        if text == self._last:
            return
        if self._out.overwrites:
            self._out.overwrite(text.ljust(len(self._last)))
        else:
            self._out.remark(text)
        self._last = text


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """How wide a table must be: whole values in one piece, others broken between words."""
    needed = _BETWEEN * (len(columns) - 1)
    for at, column in enumerate(columns):
        texts = [column.heading, *(row[at] for row in rows)]
        if column.whole:
            needed += max(len(text) for text in texts)
        else:
            needed += min(_LONGEST_WORD, max(len(word) for text in texts for word in (text.split() or [""])))
    return needed


def _in_one_line(fault: Fault) -> str:
    said = [fault.what, *(str(reason.get("sentence")) for reason in mappings(fault.problem.get("reasons")))]
    if len(said) == 1 and fault.why.rstrip(".") != fault.what.rstrip("."):
        said.append(fault.why)
    if following := fault.command or fault.next_step:
        said.append(f"Next: {following}")
    return safe(" ".join(["guestkey:", *filter(None, said)]))


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """What of a list, if it is one, are documents."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def no_color() -> bool:
    """Whether colour is unwanted (no-color.org: any non-empty value)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def find(item: Any, path: str) -> Any:
    """The value at `a.b` in nested mappings, or None; in a list, that of each of its items."""
    value = item
    for done, key in enumerate(keys := path.split(".")):
        if isinstance(value, list):
            return [find(one, ".".join(keys[done:])) for one in value]
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
