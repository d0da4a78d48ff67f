"""What every `import` shares: a file checked as a whole, then sent in parts, with a report for each line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from guestkey.cli.api import Json
from guestkey.cli.command import Cli
from guestkey.cli.faults import Code, Fault, unreadable
from guestkey.cli.output import Progress, columns
from guestkey.cli.signals import HeldSignals, handled

MOST_LINES = 5000
PART = 100
_LARGEST = 4 * 1024 * 1024
_BAR = 24

File = Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file in UTF-8, with a heading.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would happen to each line; write nothing.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Process the valid lines even if others are refused.")]
_COLUMNS = columns("line, outcome, about, link or reason=said!")


@dataclass(frozen=True, slots=True)
class FilePart:
    """Some lines of the file under its heading; `after` lines of the file come before, less the heading."""

    content: bytes
    after: int
    lines: int


def run(cli: Cli, file: Path, path: str, query: Mapping[str, Any], *, dry_run: bool, keep_going: bool) -> int:
    """Check every line, do them all unless one is refused, and report; returns the exit code."""
    parts = list(_parts(_text(file)))
    lines: list[Json] = []
    if dry_run or not keep_going:
        _send(cli, parts, path, {**query, "dry_run": True}, "Checked", lines)
        _find_repeats(lines)
    if not dry_run and not any(line["outcome"] == "refused" for line in lines):
        done: list[Json] = []
        try:
            _send(cli, parts, path, {**query, "keep_going": True}, "Done", done)
        except (Fault, KeyboardInterrupt):
            # What is done is done, and its links are shown only now.
            if done:
                _report(cli, done, dry_run=False)
                cli.out.say("Not every line was processed. Send the file again: no line is processed twice.")
            raise
        lines = done
    elif not dry_run:
        lines = [_left_out(line) for line in lines]
    return _report(cli, lines, dry_run=dry_run)


def _send(cli: Cli, parts: list[FilePart], path: str, query: Mapping[str, Any], verb: str, lines: list[Json]) -> None:
    total = sum(part.lines for part in parts)
    # A link is shown once: what was sent is heard to its end, whoever presses Ctrl-C meanwhile.
    with Progress(cli.out) as progress, handled(held := HeldSignals()):
        for part in parts:
            lines += cli.api.send(path, part.content, after=part.after, **query).get("lines") or []
            progress.tell(f"{verb} {_bar(cli, len(lines), total)}{len(lines)} of {total} lines")
            held.now()


def _report(cli: Cli, lines: list[Json], *, dry_run: bool) -> int:
    counts = Counter(str(line.get("outcome")) for line in lines)
    if cli.as_json:
        cli.out.document({"dry_run": dry_run, "counts": counts, "lines": lines})
    else:
        cli.out.items(_COLUMNS, [{**line, "said": _said(line)} for line in lines], none="No lines.")
    told = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(counts.items()))
    cli.out.remark(f"{'Dry run, nothing was written: ' if dry_run else ''}{told}.")
    if counts["refused"] and not dry_run and counts["left_out"]:
        cli.out.remark("Nothing was saved. Correct the refused lines, or add --keep-going to process the others.")
    if counts["refused"]:
        return Code.DENIED
    return Code.BACKEND if counts["left_out"] else Code.DONE


def _said(line: Json) -> str:
    if line.get("link"):
        return str(line["link"])
    column = f"{line['column']}: " if line.get("column") else ""
    return f"{column}{line.get('detail') or ''} {line.get('advice') or ''}".strip() or str(line.get("id") or "")


def _find_repeats(lines: list[Json]) -> None:
    """Lines that mean the same, in different parts of the file: the server saw each part alone."""
    first: dict[str, Any] = {}
    for line in lines:
        key = line.get("key")
        if key and first.setdefault(str(key), line["line"]) != line["line"]:
            line["outcome"] = "refused"
            line["code"] = "duplicate_line"
            line["detail"] = f"This is the same as line {first[str(key)]}."
            line["advice"] = "Remove one of the two."


def _left_out(line: Json) -> Json:
    kept = line["outcome"] == "refused" or str(line["outcome"]).startswith("already_")
    return line if kept else {**line, "outcome": "left_out"}


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        raise unreadable(file, error) from error
    if len(content) > _LARGEST:
        raise _unusable(f"It is larger than {_LARGEST // 1024 // 1024} MB.", "Split it.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise _unusable(f"It is not UTF-8: see its line {number}.", "Save it again as “CSV UTF-8”.") from None
    if "\0" in text:
        raise _unusable("It contains zero bytes, so it is not UTF-8 text.", "Save it again as “CSV UTF-8”.")
    return text


def _parts(text: str) -> Iterator[FilePart]:
    """The file, cut between its lines; a line may go on over several where it is in quotation marks."""
    physical = list(io.StringIO(text, newline=""))
    ends = _ends(physical)
    if len(ends) < 2:
        raise _unusable("It has no lines below its heading.", "Write the heading, then one line for each.")
    if len(ends) - 1 > MOST_LINES:
        raise _unusable(f"It has {len(ends) - 1} lines; at most {MOST_LINES} are allowed.", "Split it.")
    heading = "".join(physical[: ends[0]])
    for at in range(0, len(ends) - 1, PART):
        upto = ends[at : at + PART + 1]
        body = "".join(physical[upto[0] : upto[-1]])
        if body.strip():
            yield FilePart((heading + body).encode(), upto[0] - ends[0], len(upto) - 1)


def _ends(physical: list[str]) -> list[int]:
    """How many lines lie before the end of the heading, of the first line, and so on."""
    heading = physical[0] if physical else ""
    mark = next((mark for mark in ",;\t" if mark in heading), ",")
    reader = csv.reader(physical, delimiter=mark, strict=True)
    try:
        return [reader.line_num for _ in reader]
    except csv.Error as error:
        raise _unusable(
            f"Line {reader.line_num} is not well-formed CSV ({error}).", "Check its quotation marks."
        ) from None


def _unusable(why: str, advice: str) -> Fault:
    return Fault(Code.USAGE, "The file cannot be used.", why=why, next_step=advice)


def _bar(cli: Cli, done: int, total: int) -> str:
    if not cli.out.overwrites:
        return ""
    full = _BAR * done // max(1, total)
    return f"[{'#' * full}{'.' * (_BAR - full)}] "
