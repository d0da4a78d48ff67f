"""Files of lines, as spreadsheets write and read them: what comes in is checked line by line, what goes out is inert.

A file is UTF-8 and has a heading; commas, semicolons or tabs between the cells. Nothing is guessed and nothing is
repaired: a file in another encoding is refused, because a guess would change people's names. What a spreadsheet would
run as a formula (OWASP's "CSV Injection") gets an apostrophe in front when it is written, which is taken off again when
it is read. Knows no nouns and no database.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.base.errors import GuestkeyError, Invalid

MOST_LINES = 500
LONGEST_CELL = 2000
_FORMULA = "-=+@|%\uff1d\uff0b\uff0d\uff20\uff5c\uff05"
_APOSTROPHE = "'"
# What a cell must not begin with. An apostrophe that is there already counts, or it would be taken for ours.
_RISKY = rf"'*[\" ]*[{_FORMULA}"


def _beginnings(guard: str) -> re.Pattern[str]:
    """Where a risky cell begins: at its beginning, or after what separates cells or lines in other eyes.

    A spreadsheet that splits lines at semicolons does so inside our quotation marks, too: to it they are text.
    """
    return re.compile(rf"\A{guard}(?={_RISKY}\t\r])|(?<=[;\t\r\n]){guard}(?={_RISKY}])")


_RUN, _MADE_INERT = _beginnings(""), _beginnings(_APOSTROPHE)
_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\x00\x00\xfe\xff", "UTF-32"))
_SAVE_AGAIN = "Save it again as “CSV UTF-8”."


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns a file must have, and those it may have besides."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The heading of a file that has them all."""
        return ",".join((*self.needed, *self.optional))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file: its number there (the heading is 1), its cells by column, or why it cannot be used."""

    number: int
    cells: Mapping[str, str] = field(default_factory=dict)
    fault: GuestkeyError | None = None

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def read(content: bytes, columns: Columns, *, after: int = 0) -> list[Row]:
    """The lines of a file. Lines without any text are passed over.

    Args:
        after: how many lines of the whole file come before this part's first one; numbers count from there.

    Raises:
        Invalid: the file as a whole cannot be used (`file_unusable`): its encoding, its heading, its length.
    """
    text = _decoded(content)
    delimiter = _delimiter(text, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    heading: list[str] | None = None
    begun = 1
    try:
        for cells in reader:
            if heading is None:
                heading = _heading(cells, columns)
            elif any(cell.strip() for cell in cells):
                if len(rows) == MOST_LINES:
                    raise _unusable(
                        f"This file has more than {MOST_LINES} lines.",
                        "Split it, or use the command line, which sends long files in parts.",
                    )
                rows.append(_row(begun + after, heading, cells))
            begun = reader.line_num + 1
    except csv.Error as error:
        raise _unusable(
            f"Line {begun + after} is not well-formed CSV ({error}).", "Check the quotation marks."
        ) from None
    if not rows:
        raise _unusable("The file has no lines below the heading.", f"The heading is: {columns}")
    return rows


def line(values: Iterable[Any]) -> str:
    """One line of a file that no spreadsheet runs, and that `read` gives back exactly.

    Every cell is quoted. What would begin a cell where the list separator is another is guarded, too.
    """
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerow(
        [_RUN.sub(_APOSTROPHE, value) if isinstance(value, str) else value for value in values]
    )
    return written.getvalue()


def plain(cell: str) -> str:
    """What a written cell stood for before it was made inert."""
    return _MADE_INERT.sub("", cell)


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise _unusable(f"This file is {encoding}, not UTF-8.", _SAVE_AGAIN)
    if b"\x00" in content:
        raise _unusable("This file contains zero bytes, so it is not a UTF-8 text file.", _SAVE_AGAIN)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise _unusable(f"This file is not UTF-8: see its line {number}.", _SAVE_AGAIN) from None


def _delimiter(text: str, columns: Columns) -> str:
    heading = text.lstrip("\r\n").split("\n", 1)[0]
    found = [mark for mark in ",;\t" if mark in heading]
    if len(found) > 1:
        raise _unusable("The heading mixes commas, semicolons or tabs.", f"The heading is: {columns}")
    return found[0] if found else ","


def _heading(cells: Sequence[str], columns: Columns) -> list[str]:
    heading = [cell.strip().lower() for cell in cells]
    known = (*columns.needed, *columns.optional)
    advice = f"The heading is: {columns}"
    # A spreadsheet writes empty columns along; they are passed over as long as nothing stands below.
    twice = sorted({name for name in heading if name and heading.count(name) > 1})
    if twice:
        raise _unusable(f"The heading has a column twice: {_shown(twice)}.", advice)
    unknown = [name for name in heading if name and name not in known]
    if unknown:
        raise _unusable(f"The heading has an unknown column: {_shown(unknown)}.", advice)
    missing = [name for name in columns.needed if name not in heading]
    if missing:
        raise _unusable(f"The heading lacks a column: {_shown(missing)}.", advice)
    return heading


def _row(number: int, heading: Sequence[str], cells: Sequence[str]) -> Row:
    last = max(at for at, name in enumerate(heading, start=1) if name)
    for at, (name, cell) in enumerate(zip(heading, cells, strict=False), start=1):
        if not name and cell.strip():
            return Row(number, fault=_wrong(f"The cell in column {at} has no heading.", "Give the column a heading."))
    heading = heading[:last]
    if not any(cell.strip() for cell in cells[last:]):
        cells = cells[:last]
    if len(cells) != len(heading):
        detail = f"This line has {len(cells)} cells, the heading has {len(heading)}."
        return Row(number, fault=_wrong(detail, "Put quotation marks around cells that contain a comma."))
    found = {}
    for name, cell in zip(heading, cells, strict=True):
        if not name:
            continue
        cell = cell.strip(" ")
        if len(cell) > LONGEST_CELL:
            return Row(number, fault=_wrong(f"This can have {LONGEST_CELL} characters at most.", field=f"/{name}"))
        if cell[:1] and cell[0] in f"{_FORMULA}\t\r" and not _number(cell):
            detail = "A spreadsheet would run this as a formula."
            advice = "If the text is meant literally, put an apostrophe (') in front of it."
            return Row(number, fault=Invalid(detail, field=f"/{name}", advice=advice, code="formula"))
        found[name] = plain(cell)
    return Row(number, found)


def _number(cell: str) -> bool:
    return cell[1:] != "" and cell[0] == "-" and all(character in "0123456789.," for character in cell[1:])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:5])


def _unusable(detail: str, advice: str) -> Invalid:
    return Invalid(detail, advice=advice, code="file_unusable")


def _wrong(detail: str, advice: str = "", *, field: str = "") -> Invalid:
    return Invalid(detail, field=field, advice=advice, code="line_unusable")
