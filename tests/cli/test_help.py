"""Help: every command and option says what it is for, the page of all commands is current, TAB offers real names."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from broker.cli.commands import topics
from broker.cli.main import app
from broker.cli.reference import page
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
    found = list(commands(typer.main.get_command(app)))
    silent = [f"{name} {part.name}" for name, command in found for part in [*command.params, command] if not part.help]
    assert len(found) > 50
    assert silent == []


def test_the_page_of_commands_is_current() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == page(), "run `make docs`"


def test_topics_are_listed_and_read(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    listed = terminal.run("help")
    assert listed.out.split() == topics.names()
    for name in topics.names():
        read = terminal.run("help", name)
        assert read.code == 0 and "EXAMPLES" in read.out, name
    missing = terminal.run("help", "astrology")
    assert (missing.code, "Next: guestkey help" in missing.err) == (6, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_for_each_shell(tmp_path: Path, shell: str) -> None:
    shown = Terminal(tmp_path).run("--show-completion", shell)
    assert shown.code == 0 and "guestkey" in shown.out


def completed(terminal: Terminal, line: str) -> set[str]:
    """What a real bash offers at the end of a line."""
    words = line.split(" ")
    script = f"""
        eval "$({PROGRAM} --show-completion bash)"
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


def test_tab_offers_what_there_is(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, grant = world.guest()
    lease = world.issue(signed, dataset).lease
    terminal = terminal_of(signed)
    assert {"dataset", "doctor"} <= completed(terminal, "guestkey d")
    assert completed(terminal, "guestkey connect ") == {dataset.slug}
    assert completed(terminal, f"guestkey dataset show {dataset.slug[:8]}") == {dataset.slug}
    assert completed(terminal, "guestkey lease revoke ") == {lease.id}
    assert completed(terminal, "guestkey grant revoke ") == {grant.id}
    assert "exit-codes" in completed(terminal, "guestkey help ")


def test_tab_is_silent_and_quick_when_nothing_answers(tmp_path: Path) -> None:
    with broken.answering(b"", hold=True) as (url, _):
        for address in (url, "http://localhost:1"):
            terminal = Terminal(tmp_path, address, GUESTKEY_TOKEN="gka_x")
            began = time.monotonic()
            assert completed(terminal, "guestkey connect ") == set()
            assert time.monotonic() - began < 8
    assert completed(Terminal(tmp_path), "guestkey connect ") == set()
