"""A throw-away stack of real servers for the demo, started and stopped as `make up` and `make down` do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.embedded.children import free_port
from broker.embedded.postgres import binary

from .story import Unexpected
from .user import User

_ACCOUNT = re.compile(
    r"^  (?P<username>[a-z]+) +(?P<password>\S{20})  .*\n +second factor: (?P<enrol>\S+)$", re.MULTILINE
)


class DemoStack:
    """The throw-away stack, as `make up` starts it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._accounts: list[Mapping[str, str]] = []

    def up(self) -> str:
        """Start it; returns what it printed first."""
        done = self._embedded("up", "--port", str(free_port()))
        if done.returncode != 0:
            raise Unexpected(f"the stack did not start: {done.stderr.strip()}")
        # Shown once and kept nowhere, so read as a person would.
        self._accounts = [match.groupdict() for match in _ACCOUNT.finditer(done.stdout)]
        return done.stdout.splitlines()[0]

    def down(self) -> int:
        """Stop it."""
        return self._embedded("down").returncode

    @property
    def status(self) -> dict[str, Any]:
        """What runs, by process id."""
        status: dict[str, Any] = json.loads((self.state / "status.json").read_text())
        return status

    def user(self, username: str, computer: str = "") -> User:
        """A person of the example; another `computer` is another home folder."""
        account = next(account for account in self._accounts if account["username"] == username)
        home = self.state / "homes" / f"{username}{computer}"
        path = f"{binary('psql').parent}:{os.environ['PATH']}"
        return User(account, self.status["url"], home, PATH=path)

    @contextmanager
    def frozen(self, process: str) -> Iterator[None]:
        """Nothing moves in a process for a while."""
        pid = int(self.status["processes"][process])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _embedded(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "broker.embedded", command, "--state", str(self.state), *more]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
