"""`invitation`: joining links that nobody has used yet, and making one of them worthless."""

from __future__ import annotations

import typer

from broker.cli.api import segment
from broker.cli.command import Cli, verb
from broker.cli.commands.nouns import Id, Limit, Noun, group, print_list
from broker.cli.output import columns

INVITATION = Noun(
    "invitation",
    "/invitations",
    listed=columns("id, for=label, purpose, vendor, expires=expires_at@"),
    shown=(),
    none="No unused links.",
)


def mount(app: typer.Typer) -> None:
    """Add this group."""
    invitations = group(app, "invitation", "Single-use invitation links.")
    verb(invitations, "list", of="invitation")(list_invitations)
    verb(invitations, "end", of="invitation")(end_invitation)


def list_invitations(cli: Cli, limit: Limit = 100) -> None:
    """List the unused invitation links."""
    print_list(cli, INVITATION, limit, state="unused")


def end_invitation(cli: Cli, id_: Id) -> None:
    """End an unused invitation link."""
    ended = cli.api.post(f"/invitations/{segment(id_)}/end")
    cli.out.done(f"The link for {ended['label'] or ended['person']} no longer works.", ended)
