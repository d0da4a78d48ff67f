"""How a command fails: exit codes, and errors that say what, why, and the exact next command."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
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


def of_system(error: OSError) -> Fault:
    """The fault of something this computer refused: a file, a folder, a port."""
    what = f"{error.filename} cannot be used." if error.filename else "This computer refused something."
    return Fault(Code.FAULT, what, why=error.strerror or str(error), next_step="guestkey doctor")


def unwritable(file: Path, error: OSError) -> Fault:
    """Nothing can be written there."""
    return Fault(
        Code.USAGE,
        f"{file} cannot be written.",
        why=error.strerror or type(error).__name__,
        next_step="Name a new file in a folder you may write to.",
    )


def unreadable(file: Path, error: OSError | UnicodeDecodeError) -> Fault:
    """Nothing can be read there."""
    why = "It is not text in UTF-8." if isinstance(error, UnicodeDecodeError) else (error.strerror or "")
    return Fault(
        Code.USAGE, f"{file} cannot be read.", why=why, next_step="Check its name, and whether you may read it."
    )


def of_any(error: Exception) -> Fault:
    """The fault of whatever went wrong. A fault of our own programming shows its class only: what it says may hold
    anything. `GUESTKEY_DEBUG` shows all of it.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, OSError):
        return of_system(error)
    if os.environ.get("GUESTKEY_DEBUG"):
        traceback.print_exception(error)
    return Fault(
        Code.FAULT,
        "Something went wrong in guestkey itself.",
        why=type(error).__name__,
        next_step="Set GUESTKEY_DEBUG=1, run it again, and report what it prints.",
    )
