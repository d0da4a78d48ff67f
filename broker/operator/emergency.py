"""`guestkey end-everything` and `guestkey close`: pulling every plug by hand on the server, the broker up or down."""

from __future__ import annotations

import dataclasses
import re
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from broker.base.database import clock
from broker.base.errors import BackendDown, Invalid
from broker.kinds.discovery import kinds
from broker.leases.reconciling import BackendOutcome
from broker.operator.console import CommandOutput, confirm, load, unlogged
from broker.revocation.closing import close as close_installation
from broker.runtime.parts import Parts
from broker.suspensions.emergency_end import UNASKED, EmergencyReport, end_recorded, end_shown
from guestkey.cli.faults import Code

_TAG = re.compile(r"[a-z0-9]{6}")


def end_everything(
    out: CommandOutput, reason: str, *, yes: bool, installation: str | None, logins: list[str], seconds: float
) -> None:
    """Close, end every credential, say what became of each.

    Raises:
        typer.Exit: 9 where an end was not confirmed, 8 where no backend could be asked.
        Invalid: no tag of an installation, or a log-in of a connection that is not configured.
    """
    if installation is not None and _TAG.fullmatch(installation) is None:
        raise Invalid(
            "That is not an installation's tag.",
            field="/installation",
            advice="It is the six characters after gk_ in the names of its database users.",
        )
    _confirm(yes)
    settings = load()
    connections = {name for kind in kinds for name in settings.connections(kind)}
    known = [_login(text, connections) for text in logins]
    with unlogged(), closing(Parts.build(settings, identity="ender")) as parts:
        for name, url in known:
            parts.vault.remember(f"connections/{name}/watch", {"url": url})
        ended = _end_all(parts, reason, installation, seconds)
    _report(out, ended)
    if ended.unheard:
        raise typer.Exit(Code.BACKEND)
    if not ended.confirmed:
        raise typer.Exit(Code.PARTLY)


def close(out: CommandOutput, reason: str, *, hold_grants: bool) -> None:
    """Close the installation; the worker ends what is live."""
    with closing(Parts.build(load(), identity="ender")) as parts, parts.database.transaction() as tx:
        closed_at = close_installation(tx, reason, actor="operator", now=clock(tx), hold_grants=hold_grants)
    was_open = closed_at is not None
    said = "Closed: no more credentials are issued." if was_open else "It was already closed."
    out.result([said, "An admin opens it again under /installation in the portal."], {"was_open": was_open})


def _end_all(parts: Parts, reason: str, installation: str | None, seconds: float) -> EmergencyReport:
    try:
        return end_recorded(parts, reason, seconds=seconds, told=_show_progress)
    except BackendDown as error:
        if error.backend != "postgresql":
            raise
    if installation is None:
        raise Invalid(
            "The database is not responding, so this installation's tag is not known.",
            advice="Give it with --installation: the six characters after gk_ in the names of its database users.",
        )
    typer.echo("The database is not responding: ending what the backends show. Run it again later.", err=True)
    if not any(parts.settings.connections(name) for name in kinds):
        raise Invalid("No connection is configured.", advice="Set GUESTKEY_<KIND>_CONNECTIONS.")
    return end_shown(parts, installation, told=_show_progress)


def _show_progress(total: int, confirmed: int, failed: int) -> None:
    line = f"{confirmed} of {total} confirmed by their backend" + (f", {failed} failed so far" if failed else "")
    if sys.stderr.isatty():
        typer.echo(f"\r{line}", err=True, nl=confirmed == total)
    elif confirmed == total:
        typer.echo(line, err=True)


def _report(out: CommandOutput, ended: EmergencyReport) -> None:
    # What failed first: that is what somebody must look at.
    lines = [_line(outcome) for outcome in sorted(ended.outcomes, key=lambda outcome: outcome.confirmed)]
    out.result(lines, {"items": [_as_json(outcome) for outcome in ended.outcomes], "doubt": ended.doubt})
    failed = sum(not outcome.confirmed for outcome in ended.outcomes)
    typer.echo(f"{len(ended.outcomes) - failed} ended, {failed} not confirmed.", err=True)
    if ended.doubt:
        typer.echo(f"{ended.doubt} Check --installation.", err=True)
    elif not ended.outcomes:
        typer.echo("There are no credentials of this installation.", err=True)


def _line(outcome: BackendOutcome) -> str:
    if outcome.confirmed:
        return f"✓ {outcome.lease}\t{outcome.kind}\t{outcome.confirmed_by}"
    if outcome.state == UNASKED:
        return (
            f"! connection {outcome.place}\t{outcome.kind}\tnot reached: credentials there stay valid\t{outcome.error}"
        )
    until = f"exposed until {outcome.exposed_until.isoformat()}" if outcome.exposed_until else "not confirmed"
    return f"! {outcome.lease}\t{outcome.kind}\t{until}\t{outcome.error}"


def _as_json(outcome: BackendOutcome) -> dict[str, Any]:
    values = dataclasses.asdict(outcome)
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Invalid("This ends every credential.", advice="Add --yes to run it without a question.")
    if not confirm("End every credential, sign everyone out and close Guestkey?"):
        raise typer.Abort


def _login(text: str, connections: set[str]) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if not name or not file:
        raise Invalid("A log-in is NAME=FILE; the file holds the address of the watch log-in.", field="/login")
    if name not in connections:
        raise Invalid(
            f"No connection is called {name}.",
            field="/login",
            advice="Configured are: " + (", ".join(sorted(connections)) or "none; set GUESTKEY_POSTGRES_CONNECTIONS."),
        )
    return name, Path(file).read_text().strip()
