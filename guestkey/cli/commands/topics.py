"""`help`: topics that belong to no single command, as a manual has them. Each is a text beside the code."""

from __future__ import annotations

from importlib.resources import files
from textwrap import fill
from typing import Annotated

import typer

from guestkey.cli.clients import CLIENTS
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.faults import Code, Fault
from guestkey.cli.formats import FORMATS
from guestkey.cli.output import Column

_FOLDER = files("guestkey.cli") / "topics"
_WIDTH = 116


def names() -> list[str]:
    """The topics there are."""
    return sorted(file.name.removesuffix(".txt") for file in _FOLDER.iterdir() if file.name.endswith(".txt"))


def read(topic: str) -> str:
    """A topic's text.

    Raises:
        Fault: there is no such topic.
    """
    if topic not in names():
        raise Fault(Code.NOT_FOUND, f"There is no topic {topic!r}.", next_step="guestkey help")
    text = (_FOLDER / f"{topic}.txt").read_text(encoding="utf-8")
    return text.replace("{formats}", _formats()).replace("{variables}", _variables())


def about(topic: str) -> str:
    """What a topic is about, in a line."""
    return read(topic).splitlines()[0].partition(": ")[2]


def _formats() -> str:
    return "\n".join(f"    {one.name:<20} {one.about}" for one in FORMATS.values())


def _variables() -> str:
    """What programs are given by each kind: what its tools read, and the names of files."""
    said = {kind: ", ".join([*client.variables, *client.file_variables]) for kind, client in CLIENTS.items()}
    lines = [
        fill(names, _WIDTH, initial_indent=f"    {kind:<10} ", subsequent_indent=" " * 15)
        for kind, names in said.items()
        if names
    ]
    return "\n".join(lines)


def mount(app: typer.Typer, _groups: Groups) -> None:
    """Add this command."""
    verb(app, "help")(help_)


def help_(
    cli: Cli,
    topic: Annotated[
        str | None,
        typer.Argument(help="One of them; all are listed if left out.", autocompletion=lambda: names()),
    ] = None,
) -> None:
    """Read about signing in, exit codes, output and more."""
    if topic is not None:
        text = read(topic)
        if cli.as_json:
            cli.out.document({"topic": topic, "text": text})
        else:
            cli.out.value(text.rstrip())
        return
    if cli.as_json:
        cli.out.document({"topics": names(), "about": {name: about(name) for name in names()}})
        return
    cli.out.facts([Column(name, name) for name in names()], {name: about(name) for name in names()})
    cli.out.remark("Next: guestkey help TOPIC, or guestkey COMMAND --help")
