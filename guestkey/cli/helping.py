"""How `--help` reads, and what is said when the command line was not understood. Plain text, so that it starts quickly
and reads the same in a pipe, to a screen reader and in a log.
"""

from __future__ import annotations

from typing import Any

from typer import TyperException
from typer.core import TyperGroup

from guestkey.cli.faults import Code, Fault

HEADINGS = ("Commands", "Nouns", "On the server")
_OWN_FAULTS = frozenset({"run", "connect"})


class Commands(TyperGroup):
    """A group whose commands are listed whole, under the headings they name."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the lists of commands; a command's own heading is its `rich_help_panel`."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            heading = command.rich_help_panel if command.rich_help_panel in HEADINGS else HEADINGS[0]
            sections.setdefault(heading, []).append((name, (command.help or "").strip().split("\n\n")[0]))
        for heading in HEADINGS:
            if heading in sections:
                with formatter.section(heading):
                    formatter.write_dl(sections[heading])


def not_understood(error: TyperException) -> Fault:
    """What was typed is not a command of ours, or not all of one."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "guestkey"
    said = error.format_message().rstrip()
    return Fault(Code.USAGE, said if said.endswith((".", "?", ")")) else f"{said}.", next_step=f"{path} --help")


def code_of(error: TyperException) -> Code:
    """The exit code: `run` and `connect` leave 2 to the programs they run."""
    context: Any = getattr(error, "ctx", None)
    parents = []
    while context is not None:
        parents.append(context.info_name)
        context = context.parent
    # The innermost comes first, the program's own name last.
    return Code.CHILD_NOT_RUN if len(parents) == 2 and parents[0] in _OWN_FAULTS else Code.USAGE


def is_only_help(error: TyperException) -> bool:
    """Whether nothing was typed at all, so that the help itself is the answer."""
    return type(error).__name__ == "NoArgsIsHelpError"
