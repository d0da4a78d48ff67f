"""`audit verify`, `audit checkpoint`: checking the log without trusting the broker."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from broker.log import merkle
from broker.log.checkpoints import BadCheckpoint, Checkpoint, Key, opened
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.faults import Code, Fault, unreadable, unwritable
from guestkey.cli.log_check import NotProven, check
from guestkey.cli.output import Progress

_NO_KEY = (
    "The key came with the file it signs: compare it with the key you keep, or pass that with --key."
    " `guestkey audit checkpoint --json` shows the log's."
)
_TELL_EVERY = 10_000
KeyOption = Annotated[str | None, typer.Option(help="The log's public key that you keep: guestkey.log/…+…+….")]


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add these commands to `audit`."""
    audit = groups["audit"]
    verb(audit, "verify", of="audit")(verify)
    verb(audit, "checkpoint", of="audit")(checkpoint)


def verify(
    cli: Cli,
    file: Annotated[Path, typer.Argument(help="What `audit export --format proofs` wrote.")],
    key: KeyOption = None,
) -> None:
    """Verify offline that every event of a file is in the signed log, unaltered."""
    pinned = None if key is None else _key(key)
    try:
        with file.open(encoding="utf-8") as lines, Progress(cli.out) as progress:
            verdict = check(_counted(lines, progress), pinned)
    except NotProven as error:
        raise Fault(
            Code.FAULT,
            f"{file} is not valid: line {error.line}.",
            why=f"{error}.".capitalize(),
            next_step="Keep the file and ask the organisation's admins; `audit checkpoint --since` may tell more.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
    if pinned is None:
        cli.out.say(_NO_KEY)
    cli.out.done(
        f"{verdict.events} events proven to be in {verdict.checkpoint.origin}, unaltered, under the checkpoint of"
        f" {verdict.checkpoint.size} entries. {verdict.personal} personal details match their commitments,"
        f" {verdict.erased} were erased, {verdict.not_in_the_log_yet} events were too new to be proven."
        " Not proven: that everything that happened was recorded.",
        {
            "origin": verdict.checkpoint.origin,
            "size": verdict.checkpoint.size,
            "key": verdict.key,
            "key_pinned": pinned is not None,
            "events": verdict.events,
            "kinds": verdict.kinds,
            "personal": verdict.personal,
            "erased": verdict.erased,
            "not_in_the_log_yet": verdict.not_in_the_log_yet,
        },
    )


def checkpoint(
    cli: Cli,
    since: Annotated[
        Path | None, typer.Option(help="An earlier checkpoint that you kept: prove that the log has only grown since.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the checkpoint to a new file.")] = None,
    key: KeyOption = None,
) -> None:
    """Show the log's newest signed checkpoint; store it elsewhere to prove later that the log has only grown."""
    newest = cli.api.get("/log/checkpoint")
    used = _key(key or newest["key"])
    held = _opened("The broker's checkpoint", newest["note"], used)
    if since is not None:
        _grown(cli, _kept(since, used), held)
    if output is not None:
        _keep(output, newest["note"])
    if cli.out.as_json or output is not None:
        cli.out.done(f"A checkpoint of {held.size} entries is in {output}.", newest)
    else:
        cli.out.value(newest["note"].rstrip("\n"))


def _counted(lines: Iterable[str], progress: Progress) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if number % _TELL_EVERY == 0:
            progress.tell(f"{number} lines checked")
        yield line


def _grown(cli: Cli, before: Checkpoint, held: Checkpoint) -> None:
    answer: list[str] = []
    if before.size <= held.size:
        answer = cli.api.get("/log/consistency", first=before.size, second=held.size)["hashes"]
    proof = [base64.b64decode(hash_) for hash_ in answer]
    same_log = before.origin == held.origin
    if not same_log or not merkle.consistent(before.size, held.size, proof, before.root, held.root):
        raise Fault(
            Code.FAULT,
            "The log was changed.",
            why=f"What it held at {before.size} entries is not the beginning of what it holds now.",
            next_step="Unless the records were restored from a backup, someone rewrote them: keep your checkpoint.",
        )
    cli.out.say(f"The log has only grown: from {before.size} entries to {held.size}.")


def _kept(file: Path, key: Key) -> Checkpoint:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
    return _opened(str(file), text, key)


def _keep(file: Path, note: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as kept:
            kept.write(note)
    except OSError as error:
        raise unwritable(file, error) from error


def _opened(what: str, text: str, key: Key) -> Checkpoint:
    try:
        return opened(text, key)
    except BadCheckpoint as error:
        raise Fault(Code.FAULT, f"{what} is not valid.", why=str(error)) from None


def _key(text: str) -> Key:
    try:
        return Key.parse(text)
    except BadCheckpoint as error:
        raise Fault(
            Code.USAGE, str(error), next_step="Copy it whole, as `guestkey audit checkpoint --json` shows it."
        ) from None
