"""`guestkey connect-backend <kind>`: guided set-up of a system that holds data, by the operator on the server.

What to ask, try and keep each kind says itself, in its `connecting.py`. Here it gets what it needs, and the result is
recorded and printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import exists, select

from broker.base.database import Database, clock
from broker.base.settings import Settings
from broker.keystore.operator import operator
from broker.kinds import folders
from broker.kinds.connecting import Connected, ConnectingContext
from broker.log import audit
from broker.models import Event
from broker.operator.console import AsJson, CommandOutput, load, reporting, unlogged
from broker.runtime.parts import vault_of
from guestkey.cli.command import describe

PARTLY = 9
CONNECTED = "backend.connected"
app = typer.Typer(help="Connect a system that holds data to OpenBao.", no_args_is_help=True, rich_markup_mode=None)
_SHARED: dict[str, tuple[Any, Any]] = {
    "operator_secret_id_file": (
        Annotated[Path | None, typer.Option(help="Secret id of the identity guestkey-operator.")],
        None,
    ),
    "yes": (Annotated[bool, typer.Option("--yes", "-y", help="Never ask.")], False),
    "as_json": (AsJson, False),
}


def _mount(kind: str, connect: Callable[..., Connected]) -> None:
    """Register a kind's `connect` as a command: with its own options, and those that all have."""

    def run(operator_secret_id_file: Path | None, yes: bool, as_json: bool, **own: Any) -> None:
        with reporting(f"connect-backend {kind}", as_json=as_json) as out, unlogged():
            settings = load()
            desk = ConnectingContext(
                settings,
                sys.stdin.isatty() and not yes and not as_json,
                as_json,
                operator_secret_id_file,
                partial(operator, str(settings.bao_addr), settings.bao_ca_file),
                partial(vault_of, settings, "ender"),
                partial(vault_of, settings, "setup"),
            )
            found = connect(desk, **own)
            new = found.connected and _record(settings, kind, found)
            _tell(out, settings, kind, found, new=new)
            if found.missing:
                raise typer.Exit(PARTLY)

    describe(run, connect, _SHARED)
    app.command(kind)(run)


def _record(settings: Settings, kind: str, found: Connected) -> bool:
    """Record that it is connected; returns whether that is new."""
    database = Database(str(settings.database_url.get_secret_value()), pool_size=2, timeout=settings.database_timeout)
    known = exists().where(Event.kind == CONNECTED, Event.subject == found.name)
    try:
        with database.transaction() as tx:
            if not found.changed and tx.scalar(select(known)):
                return False
            details = {"kind": kind, **found.details}
            audit.record(tx, CONNECTED, actor="operator", subject=found.name, now=clock(tx), details=details)
        return True
    finally:
        database.close()


def _tell(out: CommandOutput, settings: Settings, kind: str, found: Connected, *, new: bool) -> None:
    data: dict[str, Any] = {"connection": found.name, "connected": found.connected, **found.document}
    if found.connected:
        data["new"] = new
    setting = {}
    if found.connection is not None:
        known = {**settings.connections(kind), found.name: found.connection}
        setting = {name: one.model_dump(exclude_none=True, mode="json") for name, one in known.items()}
        data[f"{kind}_connections"] = setting
    if out.as_json:
        out.result([], data)
        return
    if found.missing or not setting:
        return
    if found.connected:
        typer.echo(f"The {found.what} {found.name} {'is connected' if new else 'was connected already'}.", err=True)
        typer.echo("Set this for web and worker; hosts and files as guests reach them:", err=True)
    else:
        typer.echo("Nothing was stored. Without --check it is connected, and this is the setting:", err=True)
    out.result([f"GUESTKEY_{kind.upper()}_CONNECTIONS={json.dumps(setting)}"], data)
    for line in found.advice:
        typer.echo(line, err=True)


for _kind, _module in folders.modules("connecting").items():
    _mount(_kind, _module.connect)
