"""How a command fails: exit codes, and errors that say what, why, and the exact next command."""

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
        problem: the API's problem document, if it came from there.
    """

    def __init__(
        self,
        code: Code,
        what: str,
        *,
        why: str = "",
        next_step: str = "",
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.next_step = next_step
        self.problem = dict(problem or {})

    def document(self) -> dict[str, Any]:
        """The error for programs: the API's own members, and ours beside them."""
        members = {"title": self.what, "detail": self.why, "advice": self.next_step, "code": self.code.name.lower()}
        return {**members, **self.problem, "exit_code": int(self.code)}


def of_problem(status: int, problem: Mapping[str, Any]) -> Fault:
    """The fault of an API answer that is a problem document."""
    words = {key: str(problem.get(key) or "") for key in ("title", "detail", "advice")}
    return Fault(
        _code_of(status, str(problem.get("code") or "")),
        words["title"] or f"The server refused (status {status}).",
        why=words["detail"],
        next_step=words["advice"],
        problem=problem,
    )


def _code_of(status: int, code: str) -> Code:
    if code in {"insufficient_user_authentication", "wrong_code"}:
        return Code.FACTOR
    by_status = {
        400: Code.USAGE,
        401: Code.SIGN_IN,
        403: Code.DENIED,
        404: Code.NOT_FOUND,
        422: Code.USAGE,
        502: Code.BACKEND,
        503: Code.BACKEND,
        504: Code.BACKEND,
    }
    return by_status.get(status, Code.FAULT)
