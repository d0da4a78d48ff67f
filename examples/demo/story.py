"""How the demo tells its story: chapters and steps, each with what the real system answered."""

from __future__ import annotations

import json
import re
from typing import Any

from .user import Output


class Unexpected(Exception):
    """A step was answered otherwise than expected."""


class Story:
    """Prints the steps and stops at the first that is not as expected."""

    def __init__(self) -> None:
        self.steps = 0

    def chapter(self, title: str) -> None:
        """A heading."""
        print(f"\n{title}")

    def step(self, told: str, answer: object, expected: bool) -> None:
        """One step: what was done, what the system answered."""
        self.steps += 1
        shown = " ".join(str(answer).split())
        print(f"  {self.steps:>2} {'✓' if expected else '✗'} {told}\n       {shown[:220]}", flush=True)
        if not expected:
            raise Unexpected(told)

    def ran(self, told: str, ran: Output, code: int, says: str = "", *, shows: str = "") -> Output:
        """One step at a terminal: exit code, and a pattern in what it printed. `shows` picks the line to print."""
        text = f"{ran.out}\n{ran.err}"
        line = next((line for line in text.splitlines() if re.search(shows or says or ".", line)), text)
        expected = ran.code == code and re.search(says, text) is not None
        self.step(told, f"exit {ran.code}: {line if expected else text}", expected)
        return ran


def data(ran: Output) -> dict[str, Any]:
    """The data of a `--json` answer."""
    if ran.code != 0:
        raise Unexpected(f"exit {ran.code}: {ran.err.strip()}")
    data: dict[str, Any] = json.loads(ran.out)["data"]
    return data
