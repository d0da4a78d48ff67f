"""Checking a file of events and proofs offline: every leaf against one signed checkpoint. No network, no trust."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.log import merkle
from broker.log.checkpoints import BadCheckpoint, Checkpoint, Key, opened

_VERSION = 1


class NotProven(Exception):
    """Something in the file does not hold. `line` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


@dataclass(slots=True)
class LogVerdict:
    """What was proven."""

    checkpoint: Checkpoint
    key: str
    events: int = 0
    personal: int = 0
    erased: int = 0
    not_in_the_log_yet: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


def check(lines: Iterable[str], key: Key | None) -> LogVerdict:
    """Check every line of a file that `audit export --format proofs` wrote.

    Args:
        key: the log's public key as it was kept before; None takes the one in the file at its word.

    Raises:
        NotProven: a line that does not hold, or a file that was cut off.
    """
    numbered = enumerate(lines, start=1)
    verdict = _head(next(numbered, (1, ""))[1], key)
    last = 1
    for last, line in numbered:
        said = _object(last, line)
        if "events" in said:
            return _end(last, said, verdict, numbered)
        _entry(last, said, verdict)
    raise NotProven(last, "the file was cut off: its last line, which counts the events, is missing")


def _head(line: str, key: Key | None) -> LogVerdict:
    said = _object(1, line)
    if said.get("version") != _VERSION or not isinstance(said.get("checkpoint"), str):
        raise NotProven(1, "this is not a file of proofs, or it was written by a newer release")
    try:
        used = key or Key.parse(str(said.get("key", "")))
        return LogVerdict(opened(said["checkpoint"], used), str(used))
    except BadCheckpoint as error:
        raise NotProven(1, str(error)) from None


def _entry(number: int, said: Mapping[str, Any], verdict: LogVerdict) -> None:
    leaf, index, size = said.get("leaf"), said.get("index"), verdict.checkpoint.size
    if not isinstance(leaf, str) or type(index) is not int:
        raise NotProven(number, "there is no event in this line")
    path = [_bytes(number, hash_) for hash_ in said.get("hashes", [])]
    if not merkle.included(leaf.encode(), index, size, path, verdict.checkpoint.root):
        raise NotProven(number, "the event is not in the log that was signed, or it was altered")
    event = _object(number, leaf)
    committed, clear = event.get("personal", {}), said.get("personal", {})
    for name, given in clear.items():
        salted = _bytes(number, given["salt"]) + given["value"].encode()
        if committed.get(name) != hashlib.sha256(salted).hexdigest():
            raise NotProven(number, f"the clear text of {name!r} is not what was committed to")
    verdict.events += 1
    verdict.personal += len(clear)
    verdict.erased += len(committed) - len(clear)
    kind = str(event.get("kind"))
    verdict.kinds[kind] = verdict.kinds.get(kind, 0) + 1


def _end(number: int, said: Mapping[str, Any], verdict: LogVerdict, rest: Iterable[tuple[int, str]]) -> LogVerdict:
    if said["events"] != verdict.events:
        raise NotProven(number, f"{said['events']} events were written, {verdict.events} are here")
    if any(line.strip() for _, line in rest):
        raise NotProven(number + 1, "there is text after the end")
    verdict.not_in_the_log_yet = int(said.get("not_in_the_log_yet", 0))
    return verdict


def _object(number: int, line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise NotProven(number, "this is not a line of proofs")
    return said


def _bytes(number: int, text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise NotProven(number, "this is not base64") from None
