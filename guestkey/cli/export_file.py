"""A long answer of the API put into a new file, whole or not at all, or onto standard output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from guestkey.cli.command import Cli
from guestkey.cli.faults import Code, Fault, unwritable
from guestkey.cli.output import Progress

Output = Annotated[Path | None, typer.Option("--output", "-o", help="A new file; standard output if left out.")]


def save(cli: Cli, path: str, output: Path | None, **query: str | None) -> None:
    """Write out what the API answers at `path`.

    Raises:
        Fault: the file exists or cannot be written; nothing of that name is left behind then.
    """
    if output is None and cli.as_json:
        raise Fault(
            Code.USAGE,
            "With --json the export must go to a file.",
            next_step="Add --output FILE, or leave --json out: --format jsonl writes JSON, a document a line.",
        )
    if output is not None and output.exists():
        raise Fault(Code.USAGE, f"{output} already exists.", next_step="Name another file.")
    with cli.api.stream(path, **query) as pieces:
        written = cli.out.bytes(pieces) if output is None else _into(cli, pieces, output)
    if not written:
        cli.out.say("Nothing matches: the export is empty.")
    if output is None:
        cli.out.remark(f"{written} bytes written.")
    else:
        cli.out.done(f"{written} bytes written to {output}.", {"file": str(output), "bytes": written})


def _into(cli: Cli, pieces: Iterator[bytes], output: Path) -> int:
    # Never half an export under the name asked for.
    partial, written = output.with_name(f"{output.name}.part"), 0
    try:
        with partial.open("wb") as file, Progress(cli.out) as progress:
            for piece in pieces:
                written += file.write(piece)
                progress.tell(f"{written // 1024} KiB")
        partial.replace(output)
    except OSError as error:
        raise unwritable(output, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return written
