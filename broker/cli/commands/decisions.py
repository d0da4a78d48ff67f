"""`proposal`, `audit`: acts that wait for a second admin, and what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli import completing
from broker.cli.api import segment
from broker.cli.command import Cli, Groups, verb
from broker.cli.commands import log
from broker.cli.commands.nouns import Reason

ProposalId = Annotated[str, typer.Argument(metavar="ID", help="Its id.", autocompletion=completing.PROPOSALS)]


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is special about proposals and the audit log."""
    proposals = groups["proposal"]
    verb(proposals, "approve", of="proposal")(approve)
    verb(proposals, "refuse", of="proposal")(refuse)
    log.mount(groups["audit"])


def approve(cli: Cli, id_: ProposalId) -> None:
    """Approve another person's proposal; it is carried out at once."""
    cli.out.done(f"Proposal {id_} approved and carried out.", cli.api.post(f"/proposals/{segment(id_)}/approve"))


def refuse(cli: Cli, id_: ProposalId, reason: Reason) -> None:
    """Refuse a proposal."""
    cli.out.done(f"Proposal {id_} refused.", cli.api.post(f"/proposals/{segment(id_)}/refuse", {"reason": reason}))
