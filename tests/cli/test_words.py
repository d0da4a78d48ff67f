"""Every `guestkey …` that documents, errors and pages tell people to run is a command that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from broker.cli.tree import app

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "docs/**/*.md", "broker/**/*.py", "broker/**/*.html", "policies/*.csv", "deploy/**/*.hcl")
MENTION = re.compile(r"(?:`|^\$? ?|Next: |>)guestkey ([a-z][a-z-]*)(?:(?: |\n +)([a-z-]+))?", re.MULTILINE)


def test_commands_mentioned_exist() -> None:
    commands = _commands()
    wrong = []
    for file in _texts():
        for noun, act in MENTION.findall(file.read_text(encoding="utf-8")):
            if noun not in commands or (act and commands[noun] and act not in commands[noun]):
                wrong.append(f"{file.relative_to(ROOT)}: guestkey {noun} {act}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["connect", "run", "get", "why", "login", "confirm"])
def test_mentions_are_found_at_all(name: str) -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in _texts())
    assert any(noun == name for noun, _ in MENTION.findall(text))


def _texts() -> list[Path]:
    return sorted(file for place in PLACES for file in ROOT.glob(place) if file.is_file())


def _commands() -> dict[str, set[str]]:
    """Each command; for a group, its own commands."""
    root = typer.main.get_group(app)
    return {name: set(getattr(command, "commands", {})) for name, command in root.commands.items()}
