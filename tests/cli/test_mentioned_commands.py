"""Every `guestkey …` that documents, errors and pages tell people to run is a command that exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, Undefined

from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from guestkey.cli import formats
from guestkey.cli.clients import client_of
from guestkey.cli.command_tree import tree

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "docs/**/*.md", "broker/**/*.py", "broker/**/*.html", "policies/*.csv", "deploy/**/*.hcl")
MENTION = re.compile(r"(?:`|^\$? ?|Next: |>)guestkey ([a-z][a-z-]*)(?:(?: |\n +)([a-z-]+))?", re.MULTILINE)
# In a sentence of ours: `guestkey noun verb`, and not what is said of guestkey.
ADVICE = re.compile(r"\bguestkey (?!itself)([a-z][a-z-]*)(?: ([a-z][a-z-]+))?")


def test_commands_mentioned_in_texts_exist() -> None:
    commands = _commands()
    wrong = []
    for file in _texts():
        for noun, act in MENTION.findall(file.read_text(encoding="utf-8")):
            if noun not in commands or (act and commands[noun] and act not in commands[noun]):
                wrong.append(f"{file.relative_to(ROOT)}: guestkey {noun} {act}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["connect", "run", "get", "why", "login", "confirm"])
def test_command_mentions_are_detected(name: str) -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in _texts())
    assert any(noun == name for noun, _ in MENTION.findall(text))


def test_commands_shown_on_pages_can_be_parsed() -> None:
    wrong = [f"{name}: {line}" for name, line in _printed() if (said := _misread(line.split())) and said]
    assert len(list(_printed())) > 40
    assert _misread(["guestkey", "team", "sow"]) == "no sow" and _misread(["guestkey", "who", "X", "--x"]) == "--x"
    assert _misread(["guestkey", "get", "X", "--slice", "X"]) == "without --kind"
    assert not wrong, "\n".join(wrong)


def test_advice_names_commands_that_exist() -> None:
    commands, wrong = _commands(), []
    for file in sorted(path for top in ("broker", "guestkey") for path in (ROOT / top).rglob("*.py")):
        for text in _said(ast.parse(file.read_text(encoding="utf-8"))):
            for noun, act in ADVICE.findall(text):
                if noun not in commands or (act and commands[noun] and act not in commands[noun]):
                    wrong.append(f"{file.relative_to(ROOT)}: guestkey {noun} {act}")
    assert not wrong, "\n".join(wrong)


def _said(tree: ast.AST) -> Iterator[str]:
    """The strings of a module, without its docstrings; X for what is filled in."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


class Something:
    """Whatever a page fills in: there, and shown as X."""

    def __getattr__(self, _name: str) -> Something:
        return self

    def __getitem__(self, _name: str) -> Something:
        return self

    def __call__(self, *_: object) -> Something:
        return self

    def __iter__(self) -> Iterator[Something]:
        return iter((self,))

    def __str__(self) -> str:
        return "X"


class Everything(Undefined):
    """Every name of a page is something."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return Something()


def _printed() -> Iterator[tuple[str, str]]:
    """Every line of every `command(…)` in the portal's pages, with X for what is filled in."""
    environment = Environment(undefined=Everything, autoescape=False)  # noqa: S701  nothing of it is a page
    environment.filters["shell"] = str
    for file in sorted((ROOT / "broker/web/templates").rglob("*.html")):
        for call in re.findall(r"\{\{ command\(.+?\) \}\}", file.read_text(encoding="utf-8"), re.DOTALL):
            for line in environment.from_string(call).render(command=str).splitlines():
                # A remark, or a command of the code's own, which is looked at as advice.
                if not line.startswith("#") and line != "X":
                    yield file.name, line


def _misread(words: list[str]) -> str:
    """What of a command line the real tree of commands does not know."""
    command: Any = tree()
    assert words.pop(0) == "guestkey", words
    while words and getattr(command, "commands", None) and not words[0].startswith("--"):
        # Nouns that a page fills in are those that can be suspended.
        name = words.pop(0).replace("X", "vendor")
        if name not in command.commands:
            return f"no {name}"
        command = command.commands[name]
    if command.context_settings.get("ignore_unknown_options"):
        return ""  # the server's own: the options are read there
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    needed = [parameter.opts for parameter in command.params if parameter.required and parameter.opts[0][:1] == "-"]
    missing = [f"without {options[0]}" for options in needed if not set(options) & set(words)]
    return ", ".join([*(word for word in words if word.startswith("-") and word not in known), *missing])


def _texts() -> list[Path]:
    return sorted(file for place in PLACES for file in ROOT.glob(place) if file.is_file())


def _commands() -> dict[str, set[str]]:
    """Each command; for a group, its own commands."""
    root = tree()
    return {name: set(getattr(command, "commands", {})) for name, command in root.commands.items()}


@pytest.mark.parametrize("kind", kinds.values(), ids=kinds)
def test_commands_suggested_by_kinds_can_be_parsed(kind: Kind) -> None:
    words = kind.use.command.format(dataset="trials", slice="full").split()
    for said in (words, kind.use.to_write.format(dataset="trials", slice="full").split()):
        typed = said[: said.index("--")] if "--" in said else said
        assert not said or _misread([word for word in typed if word not in ("trials", "full", kind.name)]) == ""
    if client_of(kind.name).makes_key:
        # Alone, `get` would not know where the key is to be.
        assert "--format" in words or words[1] in ("connect", "run"), words
    assert client_of(kind.name).makes_key == (kind.proof is not None)
    if "--format" in words:
        formats.named(words[words.index("--format") + 1], kind.name)
