"""Whatever the other side does: one clear error, the right exit code, nothing on standard output."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.cli.broken import answering, http, problem
from tests.cli.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, GUESTKEY_TOKEN="gka_canary_of_a_token", GUESTKEY_TIMEOUT="1")


def test_run_and_connect_exit_125_for_their_own_errors(terminal: Terminal) -> None:
    with answering(problem(403, "denied", reasons=[{"sentence": "No grant.", "advice": "Ask."}])) as (url, _):
        ran = terminal.call("run", "visits", "--url", url, "--", "true")
    assert ran.code == 125
    assert "✕ No grant." in ran.err
    assert "→ Ask." in ran.err


def test_hanging_server_times_out(terminal: Terminal) -> None:
    began = time.monotonic()
    with answering(b"", hold=True) as (url, _):
        ran = terminal.call("lease", "list", "--url", url)
    assert ran.code == 8
    assert "does not answer" in ran.err
    assert time.monotonic() - began < 8


def test_unreachable_server_is_reported(terminal: Terminal) -> None:
    ran = terminal.call("lease", "list", "--url", "http://127.0.0.1:9")
    assert ran.code == 8
    assert "Next: guestkey doctor" in ran.err


@pytest.mark.parametrize(
    ("raw", "exit_code"),
    [
        pytest.param(http(200, b"<html>Welcome to the hotel</html>", "text/html"), 1, id="a captive portal"),
        pytest.param(http(200, b'{"items": [1, 2'), 1, id="half a document"),
        pytest.param(http(200, [1, 2]), 1, id="not an object"),
        pytest.param(http(200, {"items": None}), 1, id="a list without items"),
        pytest.param(http(302, b"", Location="http://elsewhere.example/"), 1, id="a redirect"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", 8, id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", 8, id="truncated"),
        pytest.param(http(500, b"Internal Server Error", "text/plain"), 1, id="a proxy's error"),
        pytest.param(http(502, b"Bad gateway", "text/plain"), 8, id="a proxy without a server"),
    ],
)
def test_invalid_answers_are_reported(terminal: Terminal, raw: bytes, exit_code: int) -> None:
    with answering(raw) as (url, _):
        ran = terminal.call("lease", "list", "--url", url)
    assert (ran.code, ran.out) == (exit_code, "")
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err
    assert "canary" not in ran.err


def test_endless_answer_is_cut_off(terminal: Terminal) -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", endless=b" " * 1_000_000) as (url, _):
        ran = terminal.call("lease", "list", "--url", url)
    assert ran.code == 1
    assert "without end" in ran.err


def test_token_is_never_sent_unencrypted(terminal: Terminal) -> None:
    ran = terminal.call("lease", "list", "--url", "http://guestkey.example.com")
    assert ran.code == 2
    assert "not encrypted" in ran.err


def test_control_characters_from_the_server_are_neutralised(terminal: Terminal) -> None:
    item = {
        "id": "r1",
        "state": "pending",
        "dataset": "a\x1b]0;owned\x07b",
        "role": "x\tsplit\nline",
        "person": {"name": "\u202edaeh"},
    }
    with answering(http(200, {"items": [item], "next_cursor": None})) as (url, _):
        piped = terminal.call("request", "list", "--url", url)
        shown = terminal.type("request", "list", "--url", url)
    assert piped.code == shown.code == 0
    assert len(piped.out.splitlines()) == 1
    for screen in (piped.out, shown.out):
        assert "\x1b]" not in screen
        assert "\u202e" not in screen


def test_pipe_output_is_tab_separated_and_not_truncated(terminal: Terminal) -> None:
    name = "d" * 300
    item = {"slug": name, "title": "T", "status": "active", "labels": ["a", "b"]}
    with answering(http(200, {"items": [item], "next_cursor": None})) as (url, _):
        ran = terminal.call("dataset", "list", "--url", url)
        document = json.loads(terminal.call("dataset", "list", "--json", "--url", url).out)
    assert ran.out == f"{name}\tT\tactive\ta, b\n"
    assert document == {"version": 1, "command": "dataset list", "data": {"items": [item]}}


def test_ids_are_not_wrapped_on_a_narrow_terminal(terminal: Terminal) -> None:
    lease = {"id": "l01m8dym3zccmk8sevvc116gbqj", "state": "active", "kind": "postgres", "dataset": "health-visits"}
    short = {"items": [lease | {"id": "l01", "slice": "full"}], "next_cursor": None}
    with answering(http(200, short)) as (url, _):
        assert re.search(r"\r\n *l01 +active +postgres +health-visits +full", _shown(terminal, url))
    long = {"items": [lease | {"slice": "deidentified"}, lease | {"dataset": "d" * 64}], "next_cursor": None}
    with answering(http(200, long)) as (url, _):
        shown = _shown(terminal, url)
    assert "id       l01m8dym3zccmk8sevvc116gbqj\r\nstate    active\r\n" in shown, shown
    assert f"dataset  {'d' * 64}\r\n" in shown
    assert "deidentified\r\n\r\nid  " in shown


def test_durations_are_printed_with_a_unit(terminal: Terminal) -> None:
    report = {"id": "su_1", "what": "vendor", "longest": 1.258, "outcomes": []}
    with answering(http(200, report)) as (url, _):
        ran = terminal.type("suspension", "show", "su_1", "--url", url, columns=80)
    assert re.search(r"longest exposure +1\.3 s\r\n", ran.out), ran.out


def _shown(terminal: Terminal, url: str) -> str:
    ran = terminal.type("lease", "list", "--url", url, columns=80)
    assert ran.code == 0, ran.out
    return ran.out


def test_no_color_and_plain_disable_colour(tmp_path: Path) -> None:
    plain = Terminal(tmp_path, GUESTKEY_TOKEN="gka_x", NO_COLOR="1")
    with answering(problem(404, "not_found")) as (url, _):
        assert "\x1b[31m" not in plain.type("dataset", "show", "x", "--url", url).out
        plain.variables.pop("NO_COLOR")
        assert "\x1b[31m" in plain.type("dataset", "show", "x", "--url", url).out
        assert "\x1b[31m" not in plain.type("dataset", "show", "x", "--plain", "--url", url).out
    with answering(http(200, {"items": [{"slug": "x"}], "next_cursor": None})) as (url, _):
        assert "\x1b[1m" in plain.type("dataset", "list", "--url", url).out
        assert "\x1b[" not in plain.type("dataset", "list", "--plain", "--url", url).out
        plain.variables["NO_COLOR"] = "1"
        assert "\x1b[" not in plain.type("dataset", "list", "--url", url).out


def test_special_characters_in_a_name_are_escaped_in_the_path(terminal: Terminal) -> None:
    with answering(problem(404, "not_found")) as (url, heard):
        assert terminal.call("dataset", "show", "../leases?x=1#y", "--url", url).code == 6
        assert terminal.call("dataset", "show", "..", "--url", url).code == 6
    assert [line.split(b" ")[1] for line in heard] == [b"/api/v1/datasets/..%2Fleases%3Fx%3D1%23y"]


def test_usage_errors_exit_2(terminal: Terminal) -> None:
    assert terminal.call("lease", "list", "--nonsense").code == 2
    assert terminal.call("nonsense").code == 2
    assert terminal.call("request", "new", "d", "--role", "r", "--purpose", "p", "--period", "soon").code == 2


def test_missing_installation_is_reported(tmp_path: Path) -> None:
    ran = Terminal(tmp_path).call("whoami")
    assert ran.code == 4
    assert "guestkey login https://" in ran.err
