"""`kind`: the kinds of credentials there are, what each asks of its holder, and how honestly it says it ends."""

from __future__ import annotations

import typer

from broker.cli.commands.nouns import Noun, group, mount_list, mount_show
from broker.cli.output import Column

KIND = Noun(
    "kind",
    "/kinds",
    listed=(
        Column("name", "name", whole=True),
        # Broken into words it would fill a screen with a column of them.
        Column("about", "about", whole=True),
        Column("actions", "actions"),
        Column("new refused within", "ending.new_sessions", seconds=True),
        Column("open ended within", "ending.open_sessions", seconds=True),
        Column("worst case", "ending.worst_case", seconds=True),
    ),
    shown=(
        Column("name", "name"),
        Column("about", "about"),
        Column("actions", "actions"),
        Column("renewable", "renewable"),
        Column("you bring", "proof.label"),
        Column("made by", "proof.how"),
        Column("how it ends", "ending.how"),
        Column("new sessions refused within", "ending.new_sessions", seconds=True),
        Column("open sessions ended within", "ending.open_sessions", seconds=True),
        Column("worst exposure", "ending.worst_case", seconds=True),
    ),
    none="No kinds of credentials.",
    key="name",
)


def mount(app: typer.Typer) -> None:
    """Add this group."""
    kinds = group(app, "kind", "Kinds of credentials: what each is for, and how it ends.")
    mount_list(kinds, KIND)
    mount_show(kinds, KIND)
