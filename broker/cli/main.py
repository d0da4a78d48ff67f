"""The entry point `guestkey`: puts the commands together. Nothing is decided here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from broker.cli import helping
from broker.cli.commands import (
    access,
    credentials,
    decisions,
    leases,
    notices,
    people,
    policy,
    server,
    sign_in,
    suspending,
    topics,
)
from broker.cli.faults import Code, of_system
from broker.cli.output import Output

# Typer shows local variables in tracebacks unless told not to, and ours hold secrets.
app = typer.Typer(
    name="guestkey",
    cls=helping.Commands,
    no_args_is_help=True,
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


for _commands in (sign_in, credentials, access, leases, people, suspending, decisions, notices, policy, topics, server):
    _commands.mount(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line to its end; returns the exit code.

    Raises:
        SystemExit: with the exit code, where a command of the server or the shell's completion was run.
    """
    _open_streams()
    try:
        code = app(list(arguments), prog_name="guestkey", standalone_mode=False)
    except typer.TyperException as error:
        if helping.is_only_help(error):
            typer.echo(error.format_message(), err=True)
        else:
            # Nothing was read of it yet, so whether JSON is wanted is not known otherwise.
            Output("guestkey", as_json="--json" in arguments).fault(helping.not_understood(error))
        return int(helping.code_of(error))
    except typer.Abort:
        return int(Code.INTERRUPTED)
    except OSError as error:
        Output("guestkey", as_json="--json" in arguments).fault(of_system(error))
        return int(Code.FAULT)
    return code if isinstance(code, int) else 0


def _open_streams() -> None:
    """Whoever started us may have closed what every program has; nothing to read, and nobody who reads."""
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BytesIO())
    sys.stdout = sys.stdout or io.TextIOWrapper(io.BytesIO())
    sys.stderr = sys.stderr or io.TextIOWrapper(io.BytesIO())


def main() -> None:
    """Run the command line."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # Told already; else Python tries once more on leaving, and leaves with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or int(Code.FAULT)
    sys.exit(code)
