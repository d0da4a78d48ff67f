"""`person export`, `grant export`, `lease export`, at a terminal and through the real API."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.cli.conftest import TerminalOf
from tests.support.world import World


def test_export_writes_a_new_file_or_standard_output(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    signed, dataset, _ = world.guest()
    world.issue(signed, dataset)
    terminal = terminal_of(signed)
    for noun in ("person", "grant", "lease"):
        file = tmp_path / f"{noun}.csv"
        ran = terminal.run(noun, "export", "-o", str(file))
        assert ran.code == 0, ran.err
        with file.open(newline="", encoding="utf-8") as lines:
            (row,) = csv.DictReader(lines)
        printed = terminal.run(noun, "export", "--format", "jsonl").out
        assert [json.loads(line)["id"] for line in printed.splitlines()] == [row["id"]]
    assert terminal.run("lease", "export", "-o", str(tmp_path / "lease.csv")).code == 2, "a file is never overwritten"
    file = tmp_path / "again.csv"
    told = json.loads(terminal.run("lease", "export", "--json", "-o", str(file)).out)["data"]
    assert told == {"file": str(file), "bytes": file.stat().st_size}
    unclear = terminal.run("lease", "export", "--json")
    assert (unclear.code, unclear.out, json.loads(unclear.err)["error"]["code"]) == (2, "", "usage")
    nowhere = terminal.run("lease", "export", "-o", str(tmp_path / "no" / "lease.csv"))
    assert (nowhere.code, "Next: Name a new file" in nowhere.err) == (2, True), nowhere
    assert not list(tmp_path.glob("*.part"))


def test_filter_accepts_a_name_and_an_unknown_name_is_an_error(
    world: World, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    vendor = world.vendor()
    signed, dataset = world.person(vendor, name=f"Kim {vendor.id}"), world.dataset(vendor)
    world.grant(dataset, signed)
    lease = world.issue(signed, dataset).lease
    terminal, file = terminal_of(world.person(roles=("auditor",))), tmp_path / "events.jsonl"
    for words in (("lease", "list", "--person"), ("audit", "list", "--about"), ("lease", "export", "--person")):
        found = terminal.run(*words, signed.caller.name)
        assert found.code == 0 and (lease.id in found.out or "received the credential" in found.out), found
    assert lease.id in terminal.run("audit", "export", "--vendor", vendor.name).out
    for asking in (
        ("lease", "list", "--person"),
        ("audit", "list", "--about"),
        ("audit", "list", "--vendor"),
        ("audit", "export", "--output", str(file), "--about"),
    ):
        nobody = terminal.run(*asking, "No One")
        assert (nobody.code, nobody.out) == (2, "") and "has that name" in nobody.err, nobody
    assert not file.exists()
    empty = terminal.run("audit", "export", "--about", signed.id, "--until", "2020-01-01", "--output", str(file))
    assert empty.code == 0 and "Nothing matches" in empty.err and file.read_bytes() == b""
