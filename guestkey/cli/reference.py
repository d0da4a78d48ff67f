"""The whole tree of commands as a page of documentation: `python -m guestkey.cli.reference > docs/commands.md`.

Typer brings its own Click, so commands are told by what they have and not by their classes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer.main

from guestkey.cli.command_tree import app
from guestkey.cli.commands import server, topics

_SHARED = {"as_json", "plain", "url", "help"}


def page() -> str:
    """The page, in Markdown."""
    root: Any = typer.main.get_command(app)
    # The light client knows the server's commands by name only.
    on_server = {**typer.main.get_group(server.operators("main").app).commands}
    root.commands = {name: on_server.get(name, command) for name, command in root.commands.items()}
    lines = [
        "# Commands",
        "",
        "Made from the commands themselves (`make docs`); a test holds the two together. Every command of a person's",
        "also takes `--json` (one versioned document, never asks), `--plain` (no colour, no asking) and `--url`; those",
        "of the server that end take `--json`.",
        "",
        *_command_lines(root, "guestkey"),
        "## Topics",
        "",
    ]
    for topic in topics.names():
        lines += [f"### {topic}", "", "```text", topics.read(topic).rstrip(), "```", ""]
    return "\n".join(lines)


def _command_lines(command: Any, name: str) -> Iterator[str]:
    if children := getattr(command, "commands", None):
        for child in sorted(children):
            yield from _command_lines(children[child], f"{name} {child}")
        return
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name not in _SHARED]
    yield " ".join([f"## {name}", *(_shown(argument) for argument in arguments)])
    yield ""
    yield inspect.cleandoc(command.help or "")
    yield ""
    for parameter in (*arguments, *options):
        yield f"- `{_named(parameter)}`: {parameter.help or ''}".rstrip()
    if arguments or options:
        yield ""


def _shown(argument: Any) -> str:
    name = _named(argument)
    return name if argument.required else f"[{name}]"


def _named(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return ", ".join([*parameter.opts, *parameter.secondary_opts])
    return str(parameter.metavar or parameter.name.strip("_").upper())


if __name__ == "__main__":
    sys.stdout.write(page())
