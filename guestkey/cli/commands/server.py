"""Commands that run on the server: mounted by name, so that the light client needs nothing of it."""

from __future__ import annotations

import importlib
from typing import Any

import typer

from guestkey.cli.command import Groups
from guestkey.cli.faults import Code, Fault

OPERATOR = "broker.operator"
_COMMANDS = {
    "serve": "Run web replicas on this server.",
    "worker": "Run the worker that ends leases, sweeps backends and rechecks access.",
    "migrate": "Migrate the database to this version.",
    "bootstrap": "Create the invitations for the first two admins, once.",
    "connect-backend": "Connect a database or store that holds data, step by step.",
    "recover": "Emergency recovery: one admin for one hour; all admins are notified.",
    "end-everything": "Emergency: end every credential, whether the broker is up or down.",
    "close": "Close the installation until an admin opens it.",
}
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def mount(app: typer.Typer, _groups: Groups) -> None:
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
            "This command runs on the server, and the server is not installed here.",
            why=f"The Python module {error.name} is missing.",
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
