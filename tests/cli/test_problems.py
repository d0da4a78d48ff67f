"""Every problem code of the API: the exit code it ends a command with, and the very command named next."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from broker.web.problems import CATALOGUE
from guestkey.cli.command_tree import tree
from guestkey.cli.problems import ANSWERS, next_command
from guestkey.cli.reasons import COMMANDS
from tests.cli.broken import answering, http, problem
from tests.cli.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
# code, exit code, and what is said next after `guestkey lease show l01x`
EXPECTED = (
    ("invalid", 2, "guestkey lease show --help"),
    ("malformed", 2, "guestkey doctor"),
    ("too_large", 2, "guestkey lease show --help"),
    ("too_slow", 1, "guestkey doctor"),
    ("file_unusable", 2, "guestkey lease show --help"),
    ("line_unusable", 2, "guestkey lease show --help"),
    ("formula", 2, "guestkey lease show --help"),
    ("duplicate_line", 2, "guestkey lease show --help"),
    ("rules_invalid", 2, ""),
    ("not_renewable", 2, "guestkey lease show l01x"),
    ("denied", 3, "guestkey lease list --state live"),
    ("ended_meanwhile", 3, "guestkey lease list --state live"),
    ("forbidden", 3, "guestkey whoami"),
    ("self_decision", 3, "guestkey whoami"),
    ("person_pending", 3, "guestkey status"),
    ("closed", 3, "guestkey status"),
    ("account_suspended", 3, ""),
    ("unknown", 3, ""),
    ("joining_refused", 3, ""),
    ("link_invalid", 3, ""),
    ("link_used", 3, "guestkey login"),
    ("link_foreign", 3, ""),
    ("not_signed_in", 4, "guestkey login"),
    ("sign_in_refused", 4, "guestkey login"),
    ("insufficient_user_authentication", 5, "guestkey confirm"),
    ("wrong_code", 5, "guestkey confirm"),
    ("passkey_refused", 5, "guestkey confirm"),
    ("enrolment_closed", 5, ""),
    ("not_found", 6, "guestkey lease list"),
    ("conflict", 1, "guestkey lease list"),
    ("facts_changed", 1, "guestkey lease list"),
    ("proposed_already", 1, "guestkey proposal list --state pending"),
    ("grant_pointless", 1, "guestkey lease list"),
    ("too_many_leases", 1, "guestkey lease list --state live"),
    ("lease_over", 1, "guestkey lease show l01x"),
    ("not_longer", 1, "guestkey lease show l01x"),
    ("idempotency_key_reused", 1, "guestkey lease list --state live"),
    ("last_factor", 1, "guestkey whoami"),
    ("csrf", 1, "guestkey doctor"),
    ("method_not_allowed", 1, "guestkey doctor"),
    ("misdirected", 1, "guestkey doctor"),
    ("tls_needed", 1, "guestkey doctor"),
    ("too_many_requests", 1, ""),
    ("internal", 1, "guestkey doctor"),
    ("backend_down", 8, "guestkey status"),
)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, GUESTKEY_TOKEN="gka_canary_of_a_token", GUESTKEY_TIMEOUT="2")


def test_every_problem_code_has_an_exit_code_and_next_command() -> None:
    assert set(ANSWERS) == set(CATALOGUE) == {code for code, _, _ in EXPECTED}


def test_every_code_used_by_the_server_is_in_the_catalogue() -> None:
    said = {
        code
        for file in (ROOT / "broker").rglob("*.py")
        for code in re.findall(r"\bcode=\"([a-z_]+)\"", file.read_text(encoding="utf-8"))
    }
    assert said
    assert said <= set(CATALOGUE)


@pytest.mark.parametrize(("code", "exit_code", "next_"), EXPECTED, ids=[code for code, _, _ in EXPECTED])
def test_each_problem_code_maps_to_its_exit_code_and_next_command(
    terminal: Terminal, code: str, exit_code: int, next_: str
) -> None:
    # The status is one no code has: what counts is the code.
    with answering(problem(418, code)) as (url, _):
        ran = terminal.call("lease", "show", "l01x", "--url", url)
        as_json = terminal.call("lease", "show", "l01x", "--json", "--url", url)
    assert (ran.code, ran.out) == (exit_code, "")
    assert ran.err.startswith(f"Error: Title of {code}\n  Detail.\n")
    assert ran.err.splitlines()[-1] == f"Next: {next_ or 'guestkey advice'}"
    assert (as_json.code, as_json.out) == (exit_code, "")
    error = json.loads(as_json.err)
    assert (error["version"], error["error"]["code"], error["error"]["exit_code"]) == (1, code, exit_code)
    assert error["error"]["next"] == (next_ or "guestkey advice")


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(400, 2), (401, 4), (403, 3), (404, 6), (409, 1), (418, 1), (422, 2), (429, 1), (500, 1), (502, 8), (503, 8)],
)
def test_unknown_problem_code_is_handled(terminal: Terminal, status: int, exit_code: int) -> None:
    with answering(problem(status, "moon_is_full")) as (url, _):
        ran = terminal.call("lease", "show", "l01x", "--url", url)
    assert (ran.code, ran.out) == (exit_code, "")
    assert ran.err == "Error: Title of moon_is_full\n  Detail.\nNext: guestkey advice\n"


@pytest.mark.parametrize("body", [{}, {"code": 7, "title": None, "reasons": None}, {"code": ["x"], "errors": None}])
def test_malformed_problem_is_handled(terminal: Terminal, body: dict[str, object]) -> None:
    with answering(http(409, body)) as (url, _):
        ran = terminal.call("lease", "show", "l01x", "--url", url)
    assert (ran.code, ran.out, ran.err) == (1, "", "Error: The server refused (status 409).\n")


HOSTILE = {
    "title": "\x1b]0;owned\x07Title\ud800\x9b2J",
    "detail": ["\u202e"],
    "advice": {"x": 1},
    "code": "denied",
    "status": "500",
    "instance": {"a": 1},
    "errors": [1, "x", {"pointer": None}],
    "reasons": ["x", {"who": 7, "sentence": "\x1b[2J", "code": [1], "opens_at": 5}, {"who": "you", "code": {}}],
    "max_age": -5,
    "exit_code": 0,
    "next": "rm -rf /",
}


def test_hostile_problem_cannot_control_terminal_or_exit_code(terminal: Terminal) -> None:
    with answering(http(403, HOSTILE)) as (url, _):
        ran = terminal.call("get", "trials", "--kind", "postgres", "--url", url)
        as_json = terminal.call("get", "trials", "--kind", "postgres", "--json", "--url", url)
    assert (ran.code, ran.out, as_json.code, as_json.out) == (3, "", 3, "")
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\ud800"} & set(ran.err + as_json.err)
    error = json.loads(as_json.err)["error"]
    assert error["title"] == HOSTILE["title"], "to programs it says the same"
    assert (error["exit_code"], error["next"]) == (3, "guestkey why trials")


def test_retry_after_is_printed(terminal: Terminal) -> None:
    body = {"title": "Too many requests", "code": "too_many_requests"}
    with answering(http(429, body, "application/problem+json", Retry_After="30")) as (url, _):
        ran = terminal.call("lease", "list", "--url", url)
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "Next: Wait 30 s, then run it again.")


def test_reasons_are_grouped_by_who_can_act(terminal: Terminal) -> None:
    reasons = [
        {"code": "no_rule", "sentence": "No rule.", "advice": "Ask.", "who": "someone"},
        {"code": "outside_hours", "sentence": "Not now.", "who": "time", "opens_at": "2026-01-02T07:00:00Z"},
        {"code": "factor_stale", "sentence": "Too old.", "advice": "Confirm.", "who": "you"},
        {"code": "of_tomorrow", "sentence": "New.", "advice": "", "who": ["x"]},
    ]
    with answering(problem(403, "denied", reasons=reasons, decision_id="dc_1", advice="")) as (url, _):
        ran = terminal.call("get", "trials", "--kind", "postgres", "--url", url)
    assert ran.code == 3
    assert re.sub(r"Opens 2026-01-02 \d\d:00:00 [^.]+\.", "Opens then.", ran.err).splitlines()[2:] == [
        "What you can fix:",
        "  ✕ Too old.",
        "    → Confirm.",
        "What needs time:",
        "  ✕ Not now.",
        "    Opens then.",
        "What someone else must fix:",
        "  ✕ No rule.",
        "    → Ask.",
        "  ✕ New.",
        "  Send them this message:",
        "    I could not get a credential for trials. Decision dc_1.",
        "    - No rule. Ask.",
        "    - New.",
        "Next: guestkey confirm",
    ]


def test_slice_option_is_suggested_if_a_slice_must_be_named(terminal: Terminal) -> None:
    reason = {"code": "slice_unnamed", "sentence": "Several slices.", "advice": "Name one of them.", "who": "you"}
    with answering(problem(403, "denied", reasons=[reason])) as (url, _):
        ran = terminal.call("get", "trials", "--kind", "s3", "--url", url)
    assert "    → Name one of them: --slice NAME" in ran.err.splitlines() and "them.\n" not in ran.err


def test_arguments_are_quoted_in_the_next_command() -> None:
    typed = {"dataset": "a b; rm -rf ~", "id_": None}
    assert next_command({"code": "denied"}, "get", typed) == "guestkey why 'a b; rm -rf ~'"
    assert next_command({"code": "conflict"}, "request approve", {"id_": "rq_1"}) == "guestkey request show rq_1"
    assert next_command({"code": "not_found"}, "policy show", {}) == "guestkey dataset list"


def test_next_command_for_every_noun_exists() -> None:
    root = tree()
    for noun, group in root.commands.items():
        for verb in getattr(group, "commands", {}):
            said = next_command({"code": "conflict"}, f"{noun} {verb}", {"dataset": "trials"}).split()
            assert said[2] in getattr(root.commands[said[1]], "commands", {}) if len(said) > 2 else said[1] == "status"
    assert next_command({"code": "conflict"}, "slice add", {"dataset": "trials"}) == "guestkey dataset show trials"
    assert next_command({"code": "not_found"}, "slice add", {"dataset": "trials"}) == "guestkey dataset list"


def test_every_next_command_exists() -> None:
    root = tree()
    blanks = {"{command}": "guestkey status", "{list}": "guestkey lease list"}
    texts = [text for answer in ANSWERS.values() for text in answer.next] + list(COMMANDS.values())
    for text in texts:
        words = shlex.split(blanks.get(text.split(" --help")[0], text))
        command = root.commands[words[1]]
        assert words[0] == "guestkey"
        assert len(words) == 2 or not hasattr(command, "commands") or words[2] in command.commands, text
