"""How a command fails: exit codes, and errors that say what, why, and the exact next command.

The command line, the SDK and what kinds bring to them raise these; the server does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Exit codes. They are an interface: scripts branch on them, and each has a test."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    DENIED = 3
    SIGN_IN = 4
    FACTOR = 5
    NOT_FOUND = 6
    WAITING = 7
    BACKEND = 8
    PARTLY = 9
    CHILD_NOT_RUN = 125
    INTERRUPTED = 130


class Fault(Exception):
    """A command cannot do what it was asked.

    Args:
        what: one sentence, for a person.
        why: the cause, if it adds something.
        next_step: what to do now, best a command.
        command: the very command to run next, where `next_step` is advice in words.
        problem: the API's problem document, if it came from there.
    """

    def __init__(
        self,
        code: Code,
        what: str,
        *,
        why: str = "",
        next_step: str = "",
        command: str = "",
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.next_step = next_step
        self.command = command
        self.problem = dict(problem or {})

    def document(self) -> dict[str, Any]:
        """The error for programs: the API's own members, and ours beside them."""
        members = {"title": self.what, "detail": self.why, "advice": self.next_step, "code": self.code.name.lower()}
        return {**members, **self.problem, "exit_code": int(self.code), "next": self.command or self.next_step}
