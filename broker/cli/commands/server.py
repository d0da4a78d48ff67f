"""Commands that run on the server: mounted by name, so that the light client needs nothing of it."""

from __future__ import annotations

import importlib
from typing import Any

import typer

from broker.cli.command import Cli
from broker.cli.faults import Code, Fault

OPERATOR = "broker.operator.main"
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


def run_operator(arguments: list[str]) -> None:
    """Hand over to the server's own command line; does not return.

    Raises:
        Fault: the server is not installed here.
    """
    try:
        operator: Any = importlib.import_module(OPERATOR)
    except ModuleNotFoundError as error:
        raise Fault(
            Code.FAULT,
            f"guestkey {arguments[0]} runs on the server, which is not installed here.",
            why=f"Python finds no module named {error.name}.",
            next_step="pip install 'guestkey[server]'",
        ) from error
    operator.app(args=arguments, prog_name="guestkey")


def _mount_one(app: typer.Typer, name: str, help_: str) -> None:
    def run(context: typer.Context) -> None:
        try:
            run_operator([name, *context.args])
        except Fault as fault:
            Cli(name).out.fault(fault)
            raise typer.Exit(int(fault.code)) from fault

    app.command(name, help=help_, context_settings=_PASSED_ON, add_help_option=False, rich_help_panel="On the server")(
        run
    )
