"""Help: every command and option says what it is for, the page of all commands is current, TAB offers real names."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from broker.web import client_nouns
from guestkey.cli.command_tree import tree
from guestkey.cli.commands import topics
from guestkey.cli.commands.server import operators
from guestkey.cli.reference import page
from tests.cli import broken
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import PROGRAM, Terminal
from tests.support.world import World

ROOT = Path(__file__).resolve().parents[2]


def commands(command: Any, name: str = "guestkey") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name."""
    yield name, command
    for child, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {child}")


def test_every_command_and_option_is_explained() -> None:
    found = [*commands(tree()), *commands(typer.main.get_command(operators("main").app))]
    silent = [f"{name} {part.name}" for name, command in found for part in [*command.params, command] if not part.help]
    assert len(found) > 50
    assert silent == []


def test_commands_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == page(), "run `make docs`"


def test_the_version_is_the_installed_one(tmp_path: Path) -> None:
    ran = Terminal(tmp_path).call("--version")
    assert (ran.code, ran.out) == (0, f"{importlib.metadata.version('guestkey')}\n")


def test_help_topics_are_listed_and_printed(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    listed = terminal.run("help")
    told = dict(line.split("\t") for line in listed.out.splitlines())
    assert list(told) == topics.names() and all(told.values())
    assert json.loads(terminal.call("help", "--json").out)["data"] == {"topics": list(told), "about": told}
    for name in topics.names():
        read = terminal.call("help", name)
        assert read.code == 0 and "EXAMPLES" in read.out, name
    missing = terminal.run("help", "astrology")
    assert (missing.code, "Next: guestkey help" in missing.err) == (6, True)


@pytest.mark.parametrize(
    ("shell", "begins", "holds"),
    [
        ("bash", "_guestkey_completion() {", "complete -o default -F _guestkey_completion guestkey"),
        ("zsh", "#compdef guestkey", "_GUESTKEY_COMPLETE=complete_zsh"),
        ("fish", "complete --command guestkey ", "_GUESTKEY_COMPLETE=complete_fish"),
    ],
)
def test_each_shell_gets_its_completion_script(tmp_path: Path, shell: str, begins: str, holds: str) -> None:
    terminal = Terminal(tmp_path, SHELL="/bin/false")
    shown = terminal.call("completion", shell)
    assert (shown.code, shown.out.startswith(begins), holds in shown.out) == (0, True, True), shown
    document = json.loads(terminal.call("completion", shell, "--json").out)["data"]
    assert document == {"shell": shell, "script": shown.out.removesuffix("\n")}
    assert terminal.call("completion", "csh").code == 2


def offered(terminal: Terminal, shell: str, line: str) -> str:
    """What the program answers to the script of a shell, for the line before the cursor."""
    words = line.split(" ")
    asked = {
        "_GUESTKEY_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    ran = terminal.run(**asked)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


HOSTILE = (
    "$(touch /tmp/x)",
    "\\$(touch x)",
    "`touch x`",
    "'; touch x; '",
    '"; touch x; "',
    "[/x]",
    "a:b",
    "x\n\x1b[2J y",
)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_cannot_inject_shell_code(tmp_path: Path, shell: str) -> None:
    items = [{"id": f"rq_{number}", "purpose": f"March {text} visits"} for number, text in enumerate(HOSTILE)]
    items += [{"id": text, "purpose": "hostile by its name"} for text in (*HOSTILE, "-x", "")]
    with broken.answering(broken.http(200, {"items": items})) as (url, _):
        said = offered(Terminal(tmp_path, url, GUESTKEY_TOKEN="gka_x"), shell, "guestkey request approve ")
    assert all(f"rq_{number}" in said for number in range(len(HOSTILE)))
    assert "hostile" not in said
    if shell == "zsh":
        # The frame that zsh evaluates: `_arguments '*: :(("name":"about" …))'`.
        said = said.removeprefix("_arguments '*: :((").removesuffix("))'\n").replace('"', "").replace(":", " ")
    assert re.fullmatch(r"[A-Za-z0-9_., \t\n-]+", said), said


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_offers_commands_options_and_topics_with_descriptions(tmp_path: Path, shell: str) -> None:
    terminal = Terminal(tmp_path)
    assert "doctor" in offered(terminal, shell, "guestkey do")
    assert "--state" in offered(terminal, shell, "guestkey lease list --")
    assert "exit-codes" in offered(terminal, shell, "guestkey help ")
    assert "revoke_failed" in offered(terminal, shell, "guestkey lease list --state ")


def completed(terminal: Terminal, line: str) -> set[str]:
    """What a real bash offers at the end of a line."""
    words = line.split(" ")
    script = f"""
        eval "$({PROGRAM} completion bash)"
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
        COMP_LINE='{line}'; COMP_POINT={len(line)}
        _guestkey_completion guestkey '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = terminal.variables | {"PATH": f"{PROGRAM.parent}:{terminal.variables['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    return set(done.stdout.split())


def test_completion_offers_existing_names(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, grant = world.guest()
    lease = world.issue(signed, dataset).lease
    terminal = terminal_of(signed)
    assert {"dataset", "doctor"} <= completed(terminal, "guestkey d")
    assert completed(terminal, "guestkey connect ") == {dataset.slug}
    assert completed(terminal, f"guestkey dataset show {dataset.slug[:8]}") == {dataset.slug}
    assert completed(terminal, "guestkey lease revoke ") == {lease.id}
    assert completed(terminal, f"guestkey connect {dataset.slug} --slice ") == {"deidentified", "full"}
    assert completed(terminal, f"guestkey request new {dataset.slug} --role an") == {"annotator"}
    assert completed(terminal, "guestkey grant list --dataset ") == {dataset.slug}
    assert completed(terminal, "guestkey grant revoke ") == {grant.id}
    assert "exit-codes" in completed(terminal, "guestkey help ")
    assert {"postgres", "token"} <= completed(terminal, f"guestkey run {dataset.slug} --kind ")
    assert completed(terminal, "guestkey get x --kind s3 --format ") == {"env", "json", "credential-process"}
    assert completed(terminal, "guestkey get x --action ") == {"read", "write"}
    url = terminal.variables["GUESTKEY_URL"]
    terminal.variables["GUESTKEY_URL"] = "http://localhost:1"
    assert completed(terminal, f"guestkey connect --url {url} ") == {dataset.slug}


def test_completion_is_silent_and_quick_without_a_server(tmp_path: Path) -> None:
    with broken.answering(b"", hold=True) as (url, _):
        for address in (url, "http://localhost:1"):
            terminal = Terminal(tmp_path, address, GUESTKEY_TOKEN="gka_x")
            began = time.monotonic()
            assert completed(terminal, "guestkey connect ") == set()
            assert time.monotonic() - began < 8
    assert completed(Terminal(tmp_path), "guestkey connect ") == set()


def test_nouns_of_the_client_are_those_of_the_api() -> None:
    shipped = json.loads((ROOT / "guestkey" / "cli" / "nouns.json").read_text())
    assert shipped == json.loads(json.dumps(client_nouns.nouns())), "run `make docs`"
