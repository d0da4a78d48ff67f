"""Events with everything needed to check them offline: `guestkey audit verify` reads what is written here.

JSON lines. The first names the checkpoint and the key; each following one holds an event's leaf, its place, the hashes
that prove it and, where it was not erased, the clear text behind its commitments; the last one counts them, so that a
file that was cut off is noticed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import select

from broker.auditing import proofs
from broker.auditing.reading_events import EventRead
from broker.base.database import Transaction
from broker.identity.caller import Caller
from broker.models import EventPersonal
from broker.runtime.parts import Parts

VERSION = 1
_BATCH = 500


def lines(parts: Parts, caller: Caller, events: Iterable[EventRead]) -> Iterator[str]:
    """The bundle of these events under the newest checkpoint, line by line.

    Raises:
        Forbidden: only admins and auditors check the log.
        NotFound: no checkpoint was signed yet.
    """
    with parts.database.transaction() as tx:
        newest = proofs.checkpoint(tx, caller)
        head = {"version": VERSION, "checkpoint": newest.note, "key": newest.key}
        size = newest.size
    yield _line(head)
    proven = later = 0
    rest = iter(events)
    while batch := list(islice(rest, _BATCH)):
        with parts.database.transaction() as tx:
            found = _proven(tx, caller, batch, size)
        proven, later = proven + len(found), later + len(batch) - len(found)
        yield from found
    yield _line({"events": proven, "not_in_the_log_yet": later})


def _proven(tx: Transaction, caller: Caller, events: Sequence[EventRead], size: int) -> list[str]:
    tree = proofs.Tree(tx, size)
    personal = _personal(tx, events)
    found = []
    for event in events:
        place = proofs.place(tx, caller, event.number, tree, size)
        if place is not None:
            said = {
                "leaf": event.leaf,
                "index": place.index,
                "hashes": [_base64(hash_) for hash_ in place.hashes],
                "personal": personal.get(event.id, {}),
            }
            found.append(_line(said))
    return found


def _personal(tx: Transaction, events: Sequence[EventRead]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in tx.scalars(select(EventPersonal).where(EventPersonal.event_id.in_([event.id for event in events]))):
        found.setdefault(row.event_id, {})[row.field] = {"value": row.value, "salt": _base64(row.salt)}
    return found


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _line(said: dict[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")) + "\n"
