"""The tree of commands: every one that is promised exists, and each, run by nobody, ends as scripts expect."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from guestkey.cli.command_tree import tree
from guestkey.cli.commands.server import _COMMANDS as ON_THE_SERVER
from tests.cli.broken import answering, http
from tests.cli.terminal import Terminal

PROMISED = """
login logout whoami status confirm doctor connect run get why help
dataset list|show
request new|list|show|withdraw|approve|refuse
grant list|show|revoke
lease list|show|renew|revoke
person list|show|suspend|resume
vendor list|show|suspend|resume
policy test|show|apply
audit list|verify|export
"""
# These need nobody signed in, or say so in a way of their own.
_WITHOUT_SIGN_IN = {
    "login",
    "logout",
    "completion",
    "status",
    "doctor",
    "help",
    "policy check",
    "policy test",
    "audit verify",
}


# What they need beside what is marked as required.
_BESIDE = {
    "request new": ["x", "--role", "x", "--purpose", "x"],
    "dataset change": ["--title", "x"],
    "grant new": ["--team", "x"],
    "slice add": ["--table", "x", "--column", "x"],
    "slice repair": ["--table", "x", "--column", "x"],
}


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for child, found in below.items():
        yield from leaves(found, f"{name} {child}".strip())


LEAVES = {name: command for name, command in leaves(tree()) if name.split()[0] not in ON_THE_SERVER}
SIGNED_IN = sorted(set(LEAVES) - _WITHOUT_SIGN_IN)


def typed(name: str, folder: Path) -> list[str]:
    """A command with something for everything it requires; `folder` gets rules to read."""
    words = name.split()
    if name.endswith(" suspend"):
        words += ["--reason", "x"]
    if name.endswith(" export"):
        words += ["--output", str(folder / "exported")]
    words += _BESIDE.get(name, [])
    if name in {"policy diff", "policy apply"}:
        for file in ("rules.csv", "networks.csv"):
            (folder / file).write_text("")
        words.append(str(folder))
    if name.endswith(" import"):
        (folder / "lines.csv").write_text("name\nx\n")
        return [*words, str(folder / "lines.csv")]
    for parameter in LEAVES[name].params:
        if parameter.required:
            value = _value(parameter.type_descriptor.annotation)
            words += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return words


def _value(type_: Any) -> str:
    """Something a parameter of this type takes."""
    if isinstance(type_, type) and issubclass(type_, Enum):
        return str(next(iter(type_)).value)
    return "1" if type_ in (int, float) else "x"


def test_documented_commands_exist() -> None:
    promised = set()
    for line in PROMISED.strip().splitlines():
        first, *rest = line.split()
        if "|" in rest[0]:
            promised |= {f"{first} {verb}" for verb in rest[0].split("|")}
        else:
            promised |= {first, *rest}
    assert promised <= set(LEAVES)


def test_every_command_has_the_shared_options() -> None:
    for name, command in LEAVES.items():
        assert {"--json", "--plain", "--url"} <= {option for p in command.params for option in p.opts}, name


@pytest.mark.parametrize("name", SIGNED_IN)
def test_commands_without_a_sign_in_exit_4(tmp_path: Path, name: str) -> None:
    words = typed(name, tmp_path)
    ran = Terminal(tmp_path, "http://localhost:1").call(*words, "--json")
    assert (ran.code, ran.out) == (125 if name in {"run", "connect"} else 4, "")
    document = json.loads(ran.err)
    assert (document["version"], document["command"]) == (1, name)
    assert document["error"]["code"] == "sign_in"
    assert document["error"]["next"] == "guestkey login"


# Exports pass on what they get, and confirming asks nothing where nobody can answer.
@pytest.mark.parametrize("name", sorted({name for name in SIGNED_IN if not name.endswith(" export")} - {"confirm"}))
def test_invalid_server_answer_exits_1_without_a_traceback(tmp_path: Path, name: str) -> None:
    words = typed(name, tmp_path)
    terminal = Terminal(tmp_path, GUESTKEY_TOKEN="gka_x", GUESTKEY_PSQL="/bin/true")
    with answering(http(200, ["nonsense"])) as (url, _):
        ran = terminal.call(*words, "--json", "--url", url)
    assert (ran.code, ran.out) == (125 if name in {"run", "connect"} else 1, ""), ran.err
    assert json.loads(ran.err.splitlines()[-1])["error"]["title"] == "The server's answer is not valid."
    with answering(http(200, {"items": [{"id": 2}], "reasons": [1], "credential": {}})) as (url, _):
        half = terminal.call(*words, "--url", url)
    assert half.code in {0, 1, 3, 7, 125}, half.err
    assert "Traceback" not in half.err


def test_help_starts_quickly() -> None:
    """Nothing is imported for help that only other commands need; and so it takes little more than its library does."""
    used = "used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime, file=sys.stderr)"
    helping = """
import resource, sys
from guestkey.cli.main import run
code = run(["--help"])
slow = {"httpx", "rich", "keyring", "pydantic", "asyncio", "fastapi", "sqlalchemy"} & set(sys.modules)
assert not slow and code == 0, (slow, code)
"""
    alone = "import resource, sys, typer.main\n"
    seconds: dict[str, list[float]] = {helping: [], alone: []}
    for script in (helping, alone) * 3:
        done = subprocess.run([sys.executable, "-c", script + used], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("Nouns:" in done.stdout) == (script is helping)
        seconds[script].append(float(done.stderr))
    assert min(seconds[helping]) < 5 * min(seconds[alone]), seconds
