"""`invitation`: joining links that nobody has used yet, and making one of them worthless."""

from __future__ import annotations

import typer

from broker.cli.api import segment
from broker.cli.command import Cli, Groups, verb
from broker.cli.commands.nouns import Id


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is special about invitations."""
    verb(groups["invitation"], "end", of="invitation")(end_invitation)


def end_invitation(cli: Cli, id_: Id) -> None:
    """End an unused invitation link."""
    ended = cli.api.post(f"/invitations/{segment(id_)}/end")
    cli.out.done(f"The link for {ended['label'] or ended['person']} no longer works.", ended)
