"""`kind`: the kinds of credentials there are, what each asks of its holder, and how honestly it says it ends."""

from __future__ import annotations

import typer

from broker.cli.commands.nouns import Noun, group, mount_list, mount_show
from broker.cli.output import columns

KIND = Noun(
    "kind",
    "/kinds",
    listed=columns(
        "name!, about!, actions, new refused within=ending.new_sessions#, open ended within=ending.open_sessions#, "
        "worst case=ending.worst_case#"
    ),
    shown=columns(
        "name, about, actions, renewable, you bring=proof.label, made by=proof.how, how it ends=ending.how, "
        "new sessions refused within=ending.new_sessions#, open sessions ended within=ending.open_sessions#, "
        "worst exposure=ending.worst_case#"
    ),
    none="No kinds of credentials.",
    key="name",
)


def mount(app: typer.Typer) -> None:
    """Add this group."""
    kinds = group(app, "kind", "Kinds of credentials: what each is for, and how it ends.")
    mount_list(kinds, KIND)
    mount_show(kinds, KIND)
