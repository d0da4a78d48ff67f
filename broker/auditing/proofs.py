"""Proofs from the log: that an event is in it, and that it only ever grew. For admins and auditors.

A bundle is events with everything needed to check them offline: `guestkey audit verify` reads it. JSON lines: the first
names the checkpoint and the key; each following one holds an event's leaf, its place, the hashes that prove it and,
where it was not erased, the clear text behind its commitments; the last one counts them, so that a file that was cut
off is noticed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from sqlalchemy import select

from broker.auditing.sentences import EventRead
from broker.base.database import Transaction
from broker.base.errors import Invalid, NotFound
from broker.identity.caller import Caller
from broker.identity.permissions import require_reader
from broker.log import merkle
from broker.models import TILE_LEVELS, EventPersonal, LogCheckpoint, LogEntry, LogNode
from broker.runtime.parts import Parts

_TILES_REMEMBERED = 64
VERSION = 1
_BATCH = 500


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where an event stands in the log, and the hashes that prove it, each 32 bytes, from the leaf upwards."""

    index: int
    hashes: list[bytes]


class Tree:
    """The log's first `size` entries as a hash tree, read tile by tile within one transaction."""

    def __init__(self, tx: Transaction, size: int) -> None:
        self._tx = tx
        self._size = size
        self.tile = lru_cache(_TILES_REMEMBERED)(self._tile)

    def subtree(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree within the tree (see `merkle.Subtrees`)."""
        above = level % TILE_LEVELS
        base, count = level - above, 1 << above
        tile, place = divmod(index * count, 1 << TILE_LEVELS)
        return merkle.joined(self.tile(base, tile)[place : place + count])

    def _tile(self, level: int, index: int) -> list[bytes]:
        """Up to 256 neighbouring hashes of one kept level."""
        first = index << TILE_LEVELS
        last = min(first + (1 << TILE_LEVELS), self._size >> level)
        if level == 0:
            query = select(LogEntry.hash).where(LogEntry.index >= first, LogEntry.index < last).order_by(LogEntry.index)
        else:
            here = (LogNode.level == level, LogNode.index >= first, LogNode.index < last)
            query = select(LogNode.hash).where(*here).order_by(LogNode.index)
        return list(self._tx.scalars(query))


def origin_of(tag: str) -> str:
    """The name of an installation's log, and of its key."""
    return f"guestkey.log/{tag}"


def checkpoint(tx: Transaction, caller: Caller, size: int | None = None) -> LogCheckpoint:
    """The newest checkpoint, or that of a size.

    Raises:
        Forbidden: only admins and auditors see the log.
        NotFound: there is none.
    """
    require_reader(caller)
    query = select(LogCheckpoint).order_by(LogCheckpoint.size.desc()).limit(1)
    if size is not None:
        query = query.where(LogCheckpoint.size == size)
    found = tx.scalars(query).one_or_none()
    if found is None:
        raise NotFound(
            "There is no such checkpoint of the log.", advice="The worker signs one within seconds of an event."
        )
    return found


def place(tx: Transaction, caller: Caller, number: int, tree: Tree, size: int) -> LogPosition | None:
    """Where the event of a number stands among the first `size` entries; None if it does not yet.

    Raises:
        Forbidden: only admins and auditors see the log.
    """
    require_reader(caller)
    index = tx.execute(select(LogEntry.index).where(LogEntry.event_number == number)).scalar_one_or_none()
    if index is None or index >= size:
        return None
    return LogPosition(index, merkle.inclusion(tree.subtree, index, size))


def grown(tx: Transaction, caller: Caller, first: int, size: int) -> list[bytes]:
    """The proof that the log of `first` entries is the beginning of that of `size`.

    Raises:
        Forbidden: only admins and auditors see the log.
        Invalid: the log never had these sizes.
    """
    require_reader(caller)
    newest = tx.execute(select(LogEntry.index).order_by(LogEntry.index.desc()).limit(1)).scalar_one_or_none()
    if newest is None or not 0 < first <= size <= newest + 1:
        raise Invalid(
            "The log has never had that many entries.", advice="Take both sizes from checkpoints, the older one first."
        )
    return merkle.consistency(Tree(tx, size).subtree, first, size)


def bundle(parts: Parts, caller: Caller, events: Iterable[EventRead]) -> Iterator[str]:
    """The bundle of these events under the newest checkpoint, line by line.

    Raises:
        Forbidden: only admins and auditors check the log.
        NotFound: no checkpoint was signed yet.
    """
    with parts.database.transaction() as tx:
        newest = checkpoint(tx, caller)
        head = {"version": VERSION, "checkpoint": newest.note, "key": newest.key}
        size = newest.size
    yield _line(head)
    proven = later = 0
    rest = iter(events)
    while batch := list(islice(rest, _BATCH)):
        with parts.database.transaction() as tx:
            found = _proven_lines(tx, caller, batch, size)
        proven, later = proven + len(found), later + len(batch) - len(found)
        yield from found
    yield _line({"events": proven, "not_in_the_log_yet": later})


def _proven_lines(tx: Transaction, caller: Caller, events: Sequence[EventRead], size: int) -> list[str]:
    tree = Tree(tx, size)
    personal = _personal_with_salts(tx, events)
    found = []
    for event in events:
        found_at = place(tx, caller, event.number, tree, size)
        if found_at is not None:
            said = {
                "leaf": event.leaf,
                "index": found_at.index,
                "hashes": [_base64(hash_) for hash_ in found_at.hashes],
                "personal": personal.get(event.id, {}),
            }
            found.append(_line(said))
    return found


def _personal_with_salts(tx: Transaction, events: Sequence[EventRead]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in tx.scalars(select(EventPersonal).where(EventPersonal.event_id.in_([event.id for event in events]))):
        found.setdefault(row.event_id, {})[row.field] = {"value": row.value, "salt": _base64(row.salt)}
    return found


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _line(said: dict[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")) + "\n"
