"""`completion`: the script that lets a shell offer commands, options and names after TAB."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from guestkey.cli.command import Cli, Groups, verb


class Shell(StrEnum):
    """The shells that can ask."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def mount(app: typer.Typer, _groups: Groups) -> None:
    """Add this command."""
    verb(app, "completion")(completion)


def completion(cli: Cli, shell: Annotated[Shell, typer.Argument(help="Yours.")]) -> None:
    """Print the completion script for your shell; `guestkey help completion` says where to put it."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="guestkey", complete_var="_GUESTKEY_COMPLETE", shell=shell.value)
    if cli.as_json:
        cli.out.document({"shell": shell.value, "script": script})
    else:
        cli.out.value(script)
