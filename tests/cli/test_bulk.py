"""Files through the command line: checked as a whole, sent in parts, reported line by line."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from guestkey.cli.api import Api, Json
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import Terminal
from tests.support.world import World


def test_import_in_several_parts_is_checked_then_done(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    terminal = terminal_of(world.person(world.vendor(), roles=("lead",)))
    file = tmp_path / "staff.csv"
    people = [f"Guest {number},guest{number}@example.org" for number in range(105)]
    file.write_text("name,email\n" + "\n".join(people) + "\n")
    dry = terminal.run("person", "import", str(file), "--dry-run")
    assert dry.code == 0, dry.err
    assert "Checked 100 of 105 lines\nChecked 105 of 105 lines\n" in dry.err
    assert "Dry run, nothing was written: 105 invited." in dry.err
    assert "106\tinvited\tGuest 104 <guest104@example.org>" in dry.out
    assert "/join/" not in dry.out
    done = terminal.run("person", "import", str(file), "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)["data"]
    assert report["counts"] == {"invited": 105}
    assert len({line["link"] for line in report["lines"]}) == 105
    again = terminal.run("person", "import", str(file))
    assert (again.code, "105 already invited." in again.err) == (0, True), again.err


def test_refused_line_exits_3_and_nothing_is_saved(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    terminal = terminal_of(world.person(world.vendor(), roles=("lead",)))
    file = tmp_path / "staff.csv"
    people = [f"Guest {number},guest{number}@example.org" for number in range(101)]
    file.write_text("name,email\n" + "\n".join([*people, people[0], "=cmd,"]) + "\n")
    stopped = terminal.run("person", "import", str(file))
    assert stopped.code == 3, stopped.err
    assert "This is the same as line 2." in stopped.out, "though in another part"
    assert "104\trefused\t" in stopped.out and "formula" in stopped.out
    assert "Nothing was saved." in stopped.err
    kept = terminal.run("person", "import", str(file), "--keep-going")
    assert kept.code == 3, kept.err
    assert "1 already invited, 101 invited, 1 refused." in kept.err


def test_imported_grants_are_requested_given_and_recognised_when_repeated(
    world: World, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    vendor, owner = world.vendor(), world.person()
    lead, guest = world.person(vendor, roles=("lead",)), world.person(vendor)
    dataset, team = world.dataset(vendor, owner=owner, register=False), world.team(vendor, guest)
    file = tmp_path / "grants.csv"
    until = (world.now() + timedelta(days=30)).date()
    file.write_text(f"dataset,role,purpose,until,team\n{dataset.slug},annotator,March visits,{until},{team.name}\n")
    asked = terminal_of(lead).run("grant", "import", str(file))
    assert (asked.code, "1 asked." in asked.err) == (0, True), asked.err
    given = terminal_of(owner).run("grant", "import", str(file))
    assert (given.code, "1 granted." in given.err) == (0, True), given.err
    again = terminal_of(owner).run("grant", "import", str(file), "--json")
    assert json.loads(again.out)["data"]["counts"] == {"already_granted": 1}
    words = ["request", "new", dataset.slug, "--role", "annotator", "--purpose", "Labels", "--period", "7d"]
    assert terminal_of(lead).run(*words, "--for", guest.id).code == 0
    assert terminal_of(lead).run(*words, "--for", owner.id).code == 6


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name\nAda\n".encode("utf-16"), "not UTF-8"),
        ("name\nLöwe\n".encode("latin-1"), "line 2"),
        (b"name\nAda\x00\n", "zero bytes"),
        (b'name\n"Ada\n', "well-formed"),
        (b"name\n", "no line"),
        (b"", "no line"),
        (b"name\n" + b"Ada\n" * 100_000, "100000 lines; at most 5000 are allowed"),
        (b"name\n" + b"A" * 5_000_000, "larger than 4 MB"),
        (b"boss\nAda\n", "unknown column"),
    ],
)
def test_unusable_file_exits_2(
    world: World, terminal_of: TerminalOf, tmp_path: Path, content: bytes, says: str
) -> None:
    terminal = terminal_of(world.person(world.vendor(), roles=("lead",)))
    file = tmp_path / "staff.csv"
    file.write_bytes(content)
    refused = terminal.run("person", "import", str(file), "--keep-going")
    assert refused.code == 2, refused.err
    assert says in refused.err, refused.err
    assert "Next: " in refused.err


@pytest.mark.parametrize(("times", "kept"), [(1, 200), (2, 100)])
def test_interrupted_import_prints_the_links_created_so_far(tmp_path: Path, times: int, kept: int) -> None:
    """Once: what is under way is heard to its end. Twice: what was heard before is still told."""
    file = tmp_path / "staff.csv"
    file.write_text("name,email\n" + "".join(f"Guest {number},guest{number}@example.org\n" for number in range(300)))
    sent: list[int] = []

    def send(_api: Api, _path: str, content: bytes, *, after: int, **_query: object) -> Json:
        sent.append(after)
        if len(sent) == 2:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return {
            "lines": [
                {"line": after + at, "outcome": "invited", "link": f"https://x/join/{after + at}"} for at in range(100)
            ]
        }

    terminal = Terminal(tmp_path, "http://localhost:1", GUESTKEY_TOKEN="gka_x")
    with patch.object(Api, "send", send):
        ran = terminal.call("person", "import", str(file), "--keep-going", "--json")
    assert (ran.code, sent) == (130, [0, 100]), ran
    lines = json.loads(ran.out)["data"]["lines"]
    assert [line["link"] for line in lines] == [f"https://x/join/{at}" for at in range(kept)]
    assert "Not every line was processed. Send the file again" in ran.err
