"""The tree of commands: put together, nothing decided. What runs it is `guestkey.cli.main`."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer

from guestkey.cli import helping
from guestkey.cli.command import Groups
from guestkey.cli.commands import (
    access,
    completion,
    credentials,
    leases,
    log,
    notices,
    nouns,
    people,
    policy,
    registry,
    server,
    sign_in,
    suspending,
    topics,
)

# Typer shows local variables in tracebacks unless told not to, and ours hold secrets.
app = typer.Typer(
    name="guestkey",
    cls=helping.Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    help="A key to one dataset, for a few minutes, after a fresh second factor, taken back for certain.",
    epilog="Exit codes: 0 done, 1 fault, 2 usage, 3 denied, 4 sign in, 5 second factor needed, 6 not found,"
    " 7 still waiting, 8 backend down, 9 partly revoked, 130 interrupted. `run` and `connect` pass the program's;"
    " their own faults are 125. `guestkey help` lists topics.",
)


def _version(wanted: bool) -> None:
    if wanted:
        # Slow to import, and for nothing but this.
        import importlib.metadata

        typer.echo(importlib.metadata.version("guestkey"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before any command."""


_groups: Groups = {}
nouns.mount(app, _groups, special=frozenset({"dataset", "request", "team", "suspension"}))
for _commands in (
    sign_in,
    credentials,
    access,
    leases,
    people,
    registry,
    suspending,
    log,
    notices,
    policy,
    topics,
    completion,
    server,
):
    _commands.mount(app, _groups)


@cache
def tree() -> Any:
    """The commands as they are run; to put them together takes a while, and once is enough for a process."""
    return typer.main.get_command(app)
