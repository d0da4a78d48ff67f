"""Checking the log without trusting the broker: proofs of events, and that the log only grew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from broker.auditing.proofs import Tree
from broker.base.database import Transaction
from broker.log import audit, merkle
from broker.log.checkpoints import Checkpoint, Key, note
from broker.worker import sequencing
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import Terminal
from tests.support.world import Signed, World


@pytest.fixture
def auditor(world: World, terminal_of: TerminalOf) -> Terminal:
    """The terminal of an auditor, after something happened and was put into the log."""
    signed, dataset, _ = world.guest()
    world.issue(signed, dataset)
    sequencing.sequence(world.ender)
    return terminal_of(world.person(roles=("auditor",)))


def recorded(world: World, tx: Transaction, someone: Signed, **personal: str) -> str:
    """An event of which nothing but the log takes notice."""
    actor = someone.caller.subject
    return audit.record(tx, "audit.exported", actor=actor, subject=someone.id, now=world.now(), personal=personal)


def exported(auditor: Terminal, file: Path, *filters: str) -> None:
    ran = auditor.run("audit", "export", "--format", "proofs", "-o", str(file), *filters)
    assert ran.code == 0, ran.err


def key_of(auditor: Terminal) -> str:
    return str(json.loads(auditor.run("audit", "checkpoint", "--json").out)["data"]["key"])


def test_exported_events_verify_offline(world: World, auditor: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    exported(auditor, file)
    offline = Terminal(tmp_path / "elsewhere", "http://127.0.0.1:1")
    (tmp_path / "elsewhere").mkdir()
    ran = offline.run("audit", "verify", str(file), "--key", key_of(auditor), "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)["data"]
    with world.database.transaction() as tx:
        assert said["size"] == sequencing.size_of(tx)
    assert said["events"] == said["size"]
    assert said["kinds"]["lease.issued"] >= 1
    assert said["key_pinned"] is True
    unpinned = offline.run("audit", "verify", str(file))
    assert unpinned.code == 0
    assert "compare it with the key you keep" in unpinned.err


def test_events_rewritten_by_the_database_owner_are_detected(world: World, auditor: Terminal, tmp_path: Path) -> None:
    with world.admin("guestkey") as owner:
        row = owner.execute(
            "SELECT number, leaf FROM guestkey.event WHERE kind = 'lease.issued' ORDER BY number DESC LIMIT 1"
        ).fetchone()
        assert row is not None
        rewritten = json.loads(row[1]) | {"actor": "person:somebody-else"}
        owner.execute("UPDATE guestkey.event SET leaf = %s WHERE number = %s", (json.dumps(rewritten).encode(), row[0]))
        try:
            exported(auditor, tmp_path / "rewritten.jsonl", "--kind", "lease.issued")
        finally:
            owner.execute("UPDATE guestkey.event SET leaf = %s WHERE number = %s", (row[1], row[0]))
    ran = auditor.run("audit", "verify", str(tmp_path / "rewritten.jsonl"))
    assert ran.code == 1
    assert "not in the log that was signed, or it was altered" in ran.err.replace("\n", " ")
    exported(auditor, tmp_path / "mended.jsonl", "--kind", "lease.issued")
    assert auditor.run("audit", "verify", str(tmp_path / "mended.jsonl")).code == 0


def test_proof_is_valid_after_personal_data_is_erased(world: World, auditor: Terminal, tmp_path: Path) -> None:
    someone = world.person(roles=("auditor",))
    with world.database.transaction() as tx:
        event_id = recorded(world, tx, someone, filter="a name", purpose="another")
    with world.admin("guestkey") as owner:
        owner.execute("DELETE FROM guestkey.event_personal WHERE event_id = %s AND field = 'filter'", (event_id,))
    sequencing.sequence(world.ender)
    exported(auditor, tmp_path / "erased.jsonl", "--about", someone.id)
    said = json.loads(auditor.run("audit", "verify", str(tmp_path / "erased.jsonl"), "--json").out)["data"]
    assert (said["events"], said["personal"], said["erased"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "fault", ["cut", "clear text", "swapped", "moved", "empty", "not json", "binary", "foreign key"]
)
def test_invalid_proof_file_is_refused_with_its_line(
    world: World, auditor: Terminal, tmp_path: Path, fault: str
) -> None:
    file = tmp_path / "good.jsonl"
    someone = world.person(roles=("auditor",))
    for _ in range(2):
        with world.database.transaction() as tx:
            recorded(world, tx, someone, filter="a name")
    sequencing.sequence(world.ender)
    exported(auditor, file, "--about", someone.id)
    head, first, second, end = file.read_text().splitlines()

    def altered(line: str, **changes: Any) -> str:
        return json.dumps(json.loads(line) | changes)

    clear = {"filter": json.loads(first)["personal"]["filter"] | {"value": "another name"}}
    contents = {
        "cut": [head, first, second],
        "clear text": [head, altered(first, personal=clear), second, end],
        "swapped": [head, altered(first, leaf=json.loads(second)["leaf"]), second, end],
        "moved": [head, altered(first, index=json.loads(first)["index"] + 1), second, end],
        "empty": [],
        "not json": [head, "[" * 5000, second, end],
        "binary": [head, "\x00\x01", end],
        "foreign key": [altered(head, key="x+00000000+AAAA"), first, second, end],
    }
    file.write_text("\n".join(contents[fault]) + "\n")
    ran = auditor.run("audit", "verify", str(file))
    assert ran.code == 1, ran.err
    assert "is not valid: line" in ran.err
    assert "Traceback" not in ran.err


def test_checkpoint_since_proves_that_the_log_has_only_grown(world: World, auditor: Terminal, tmp_path: Path) -> None:
    kept = tmp_path / "kept.checkpoint"
    assert auditor.run("audit", "checkpoint", "-o", str(kept)).code == 0
    assert auditor.run("audit", "checkpoint", "-o", str(kept)).code == 2, "never written over"
    signed, dataset, _ = world.guest()
    world.issue(signed, dataset)
    sequencing.sequence(world.ender)
    ran = auditor.run("audit", "checkpoint", "--since", str(kept), "--key", key_of(auditor))
    assert ran.code == 0, ran.err
    assert "The log has only grown" in ran.err
    assert auditor.run("audit", "checkpoint", "--since", str(kept), "--key", "nonsense").code == 2
    key = Key.parse(key_of(auditor))
    other = Checkpoint(key.name, 3, bytes(32))
    version, _ = world.ender.vault.public_keys(sequencing.KEY)
    signature = world.ender.vault.sign_ed25519(sequencing.KEY, other.body().encode(), version=version)
    kept.write_text(note(other, key, signature))
    ran = auditor.run("audit", "checkpoint", "--since", str(kept))
    assert ran.code == 1
    assert "The log was changed" in ran.err
    kept.write_text("nonsense")
    assert auditor.run("audit", "checkpoint", "--since", str(kept)).code == 1


def test_guests_cannot_verify_the_log(world: World, auditor: Terminal, terminal_of: TerminalOf) -> None:
    del auditor
    guest = terminal_of(world.person(world.vendor()))
    for command in (["audit", "checkpoint"], ["audit", "export", "--format", "proofs"]):
        assert guest.run(*command).code == 3


def test_late_event_and_concurrent_sequencers_keep_the_log_consistent(world: World) -> None:
    """A lower number may commit after a higher one was put into the tree."""
    someone = world.person(roles=("auditor",))
    with world.database.transaction() as late:
        first = recorded(world, late, someone)
        late.flush()
        with world.database.transaction() as tx:
            second = recorded(world, tx, someone)
        sequencing.sequence(world.ender)
        with world.database.transaction() as tx:
            before = sequencing.size_of(tx)
            tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": sequencing._ADVISORY_LOCK})
            assert sequencing.sequence(world.ender) == 0, "another sequencer is at it"
    sequencing.sequence(world.ender)
    with world.database.transaction() as tx:
        ids = "SELECT event.id FROM guestkey.log_entry JOIN guestkey.event ON number = event_number"
        order = list(
            tx.execute(text(f"{ids} WHERE event.id = ANY(:ids) ORDER BY index"), {"ids": [first, second]}).scalars()
        )
        assert order == [second, first]
        assert sequencing.size_of(tx) > before


def test_stored_tiles_give_the_same_root_as_all_leaves(world: World) -> None:
    """Beyond 256 entries roots come from the tiles kept; they are those of the plain tree."""
    someone = world.person(roles=("auditor",))
    with world.database.transaction() as tx:
        missing = 600 - sequencing.size_of(tx)
        for _ in range(max(1, missing)):
            recorded(world, tx, someone)
    sequencing.sequence(world.ender)
    with world.database.transaction() as tx:
        hashes = list(tx.execute(text("SELECT hash FROM guestkey.log_entry ORDER BY index")).scalars())
        plain = lambda level, index: merkle.joined(hashes[index << level : (index + 1) << level])  # noqa: E731
        for size in (1, 255, 256, 257, 511, 512, 513, len(hashes)):
            assert merkle.root(Tree(tx, size).subtree, size) == merkle.root(plain, size)
