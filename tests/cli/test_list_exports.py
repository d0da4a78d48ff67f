"""`person export`, `grant export`, `lease export`, at a terminal and through the real API."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.cli.conftest import TerminalOf
from tests.support.world import World


def test_a_list_goes_to_a_new_file_or_standard_output(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
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
