"""The sequencer: puts committed events into the log's hash tree, and has its checkpoints signed and published.

An event's number is drawn before its transaction commits, so a lower number may become visible after a higher one. The
tree therefore has an order of its own: that in which events were found committed. Nothing is ever put in twice or
moved; a restore from a backup makes another log, which checkpoints published before give away.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or

from broker.auditing.proofs import Tree, origin_of
from broker.base.database import Transaction
from broker.log import merkle
from broker.log.checkpoints import Checkpoint, Key, note
from broker.models import TILE_LEVELS, Event, LogCheckpoint, LogEntry, LogNode
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
KEY = "checkpoints"
BATCH = 2000
# No transaction of the broker lives this long: PostgreSQL ends idle ones after 20 s and statements after 2 s.
LATE = timedelta(minutes=10)
_ADVISORY_LOCK = 0x67_6B_6C_6F_67  # "gklog": one sequencer at a time


def sequence(parts: Parts) -> int:
    """Put what was committed into the tree, then publish a checkpoint if the tree grew. Returns how many came.

    Raises:
        BackendDown: OpenBao cannot sign. The entries are in the tree; the next round signs.
        VaultRefused: this identity may not sign.
    """
    came = 0
    while True:
        with parts.database.transaction() as tx:
            found = _append(tx)
        came += found
        if found < BATCH:
            break
    publish(parts)
    return came


def publish(parts: Parts) -> bool:
    """Sign and keep a checkpoint of the tree as it is now; False where the newest one says the same already.

    Raises:
        BackendDown: OpenBao is out of reach.
        VaultRefused: this identity may not sign, or the key was never made (`deploy/openbao/upgrade`).
    """
    with parts.database.transaction() as tx:
        size = size_of(tx)
        if size == tx.execute(select(func.coalesce(func.max(LogCheckpoint.size), 0))).scalar_one():
            return False
        checkpoint = Checkpoint(origin_of(parts.tag_in(tx)), size, merkle.root(Tree(tx, size).subtree, size))
    version, public = parts.vault.public_keys(KEY)
    key = Key(checkpoint.origin, base64.b64decode(public[version]))
    signed = note(checkpoint, key, parts.vault.sign_ed25519(KEY, checkpoint.body().encode(), version=version))
    with parts.database.transaction() as tx:
        row = {"size": size, "note": signed, "key": str(key)}
        tx.execute(insert_or(LogCheckpoint).values(row).on_conflict_do_nothing())
    if parts.settings.checkpoint_folder is not None:
        _write_out(parts.settings.checkpoint_folder, size, signed)
    return True


def size_of(tx: Transaction) -> int:
    """How many entries the tree has."""
    return tx.execute(select(func.coalesce(func.max(LogEntry.index) + 1, 0))).scalar_one()


def _append(tx: Transaction) -> int:
    if not tx.execute(select(func.pg_try_advisory_xact_lock(_ADVISORY_LOCK))).scalar_one():
        return 0
    size = size_of(tx)
    unsequenced = (
        select(Event.number, Event.leaf)
        .outerjoin(LogEntry, LogEntry.event_number == Event.number)
        .where(Event.number > _entries_settled(tx), LogEntry.index.is_(None))
        .order_by(Event.number)
        .limit(BATCH)
    )
    rows = [
        {"index": size + place, "event_number": number, "hash": merkle.leaf_hash(leaf)}
        for place, (number, leaf) in enumerate(tx.execute(unsequenced))
    ]
    if rows:
        tx.execute(insert(LogEntry), rows)
        _keep_full_tiles(tx, size, size + len(rows))
    return len(rows)


def _entries_settled(tx: Transaction) -> int:
    """A number up to which nothing can appear any more: what was written well before the newest event in the tree."""
    newest = select(Event.at).join(LogEntry, LogEntry.event_number == Event.number)
    at = tx.execute(newest.order_by(LogEntry.index.desc()).limit(1)).scalar_one_or_none()
    if at is None:
        return 0
    before = select(Event.number).where(Event.at < at - LATE).order_by(Event.at.desc()).limit(1)
    return tx.execute(before).scalar_one_or_none() or 0


def _keep_full_tiles(tx: Transaction, before: int, after: int) -> None:
    """Keep the roots of the tiles that became full, level by level."""
    level, tile = TILE_LEVELS, 1 << TILE_LEVELS
    while after >> TILE_LEVELS:
        before, after = before >> TILE_LEVELS, after >> TILE_LEVELS
        tree = Tree(tx, after * tile)
        rows = [
            {"level": level, "index": index, "hash": merkle.joined(tree.tile(level - TILE_LEVELS, index))}
            for index in range(before, after)
        ]
        if not rows:
            return
        tx.execute(insert(LogNode), rows)
        level, tile = level + TILE_LEVELS, tile << TILE_LEVELS


def _write_out(folder: Path, size: int, signed: str) -> None:
    """Write a checkpoint beside the records; a disk that fails is said and stops nothing."""
    names: Sequence[str] = (f"{size:012d}.checkpoint", "newest.checkpoint")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            partial = folder / f".{name}.part"
            partial.write_text(signed, encoding="utf-8")
            partial.replace(folder / name)
    except OSError as error:
        log.error("checkpoint.not_written", folder=str(folder), error=error.strerror)
