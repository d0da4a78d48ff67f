"""Commands that run on the server: mounted by name, so that the light client needs nothing of it."""

from __future__ import annotations

import importlib
from typing import Any

import typer

from broker.cli.faults import Code, Fault

OPERATOR = "broker.operator"
_COMMANDS = {
    "serve": "Run web replicas on this server.",
    "worker": "Run the worker that ends, sweeps and decides again.",
    "migrate": "Bring the records' tables up to this version.",
    "bootstrap": "Make the first two admins' invitations, once.",
    "connect-backend": "Connect a database that holds data, guided.",
    "recover": "Break the glass: one admin for one hour, told to all.",
    "end-everything": "Pull every plug, the broker up or down.",
    "close": "Close the installation until an admin opens it.",
}
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def mount(app: typer.Typer) -> None:
    """Add these commands."""
    for name, help_ in _COMMANDS.items():
        _mount_one(app, name, help_)


def operators(module: str) -> Any:
    """A module of the server's command line; its absence is told by the command that wants it.

    Raises:
        Fault: the server is not installed here.
    """
    try:
        return importlib.import_module(f"{OPERATOR}.{module}")
    except ModuleNotFoundError as error:
        raise Fault(
            Code.FAULT,
            "This runs on the server, which is not installed here.",
            why=f"Python finds no module named {error.name}.",
            next_step="pip install 'guestkey[server]'",
        ) from error


def _mount_one(app: typer.Typer, name: str, help_: str) -> None:
    def run(context: typer.Context) -> None:
        # Errors and exit codes are told by whoever runs this command.
        code = operators("main").app(args=[name, *context.args], prog_name="guestkey", standalone_mode=False)
        raise typer.Exit(code if isinstance(code, int) else 0)

    app.command(name, help=help_, context_settings=_PASSED_ON, add_help_option=False, rich_help_panel="On the server")(
        run
    )
