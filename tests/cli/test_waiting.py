"""Waiting for what the server does in its own time: how far it is, and what a person who leaves is told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from guestkey.cli import status_summary
from guestkey.cli.commands import log
from guestkey.cli.output import Output, Progress
from tests.cli.broken import answering, http
from tests.cli.terminal import CTRL_C, Terminal

LASTING = http(
    200,
    {
        "id": "l01",
        "state": "revoking",
        "leases": ["l01", "l02"],
        "suspension": "su_1",
        "confirmed": 1,
        "total": 3,
        "finished": False,
        "failing": 0,
        "outcomes": [],
    },
)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, GUESTKEY_TOKEN="gka_x")


@pytest.mark.parametrize(
    ("words", "far", "goes_on"),
    [
        (("lease", "revoke", "l01"), "l01 is revoking; waiting, ", "guestkey lease show l01"),
        (("grant", "revoke", "g01", "-r", "x"), "l01 is revoking; waiting, ", "guestkey lease show l01"),
        (("vendor", "suspend", "v01", "-r", "x"), "1 of 3 confirmed", "guestkey suspension show su_1"),
    ],
)
def test_interrupted_wait_says_that_ending_continues(
    terminal: Terminal, words: tuple[str, ...], far: str, goes_on: str
) -> None:
    with answering(LASTING) as (url, _):
        ran = terminal.type(*words, "--url", url, answers=[(far, CTRL_C)])
    assert ran.code == 130, ran.out
    assert "Interrupted. " in ran.out and f"Next: {goes_on}\r\n" in ran.out


def test_grant_revoke_waits_for_its_leases_up_to_its_own_limit(terminal: Terminal) -> None:
    with answering(LASTING) as (url, _):
        ran = terminal.call("grant", "revoke", "g01", "-r", "x", "--wait", "1s", "--url", url, "--json")
    assert (ran.code, len(json.loads(ran.out)["data"]["outcomes"])) == (7, 2), ran


def test_import_shows_a_progress_bar(terminal: Terminal) -> None:
    file = terminal.home / "staff.csv"
    file.write_text("name\nAda\nBea\n")
    lines = [{"line": number, "outcome": "invited", "about": "x"} for number in (2, 3)]
    with answering(http(200, {"lines": lines})) as (url, _):
        ran = terminal.type("person", "import", str(file), "--url", url)
        piped = terminal.call("person", "import", str(file), "--url", url)
    bar = "[########################] 2 of 2 lines"
    assert (ran.code, f"\rChecked {bar}\r\n" in ran.out, f"\rDone {bar}\r\n" in ran.out) == (0, True, True), ran.out
    assert piped.err.startswith("Checked 2 of 2 lines\nDone 2 of 2 lines\n")


def test_empty_filtered_list_says_so(terminal: Terminal) -> None:
    with answering(http(200, {"items": [], "next_cursor": None})) as (url, _):
        ran = terminal.call("lease", "list", "--person", "bogus", "--state", "live", "--url", url)
    assert (ran.code, ran.err) == (0, "Nothing matches --state live --person bogus.\n")


def test_status_shows_a_closed_installation_first() -> None:
    facts = {"url": "https://x", "installation": {"closed_at": "2026-11-02T10:00:00Z"}, "me": {"status": "pending"}}
    assert status_summary.remark(facts).startswith("The installation is closed: no credentials are issued.")


def test_verifying_a_long_proof_file_shows_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with patch.object(log, "_TELL_EVERY", 2), Progress(Output("audit verify", as_json=False)) as progress:
        assert list(log._counted(["a"] * 5, progress)) == ["a"] * 5
    assert capsys.readouterr().err == "2 lines checked\n4 lines checked\n"


def test_exposed_leases_are_not_waited_for(terminal: Terminal) -> None:
    exposed = {"id": "l01", "state": "revoking", "exposed_until": "2030-01-01T00:00:00Z"}
    began = time.monotonic()
    with answering(http(200, exposed)) as (url, _):
        ran = terminal.call("lease", "revoke", "l01", "--wait", "30s", "--url", url)
    assert (ran.code, time.monotonic() - began < 10) == (7, True), ran
    assert "its backend cannot end it before 2030-01-01T00:00:00Z" in ran.err
