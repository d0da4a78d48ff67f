"""Runs the real `guestkey` program: through pipes, or on a pseudo-terminal where somebody types."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from unittest.mock import patch

from guestkey.cli import main
from tests.support import forking

CTRL_C = "\x03"
Answer = str | Callable[[], str]
PROGRAM = Path(sys.executable).with_name("guestkey")


@dataclass
class Ran:
    """What came out."""

    code: int
    out: str
    err: str


class Terminal:
    """A person's computer: a home folder of its own, no keyring unless a test brings one."""

    def __init__(self, home: Path, url: str | None = None, **variables: str) -> None:
        self.home = home
        self.variables = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": "Europe/Berlin",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "BROWSER": "/bin/false",
            "GUESTKEY_TIMEOUT": "5",
            **({"GUESTKEY_URL": url} if url else {}),
            **variables,
        }

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> Ran:
        """Run without a terminal to the end."""
        environment = self.variables | variables
        if forking.startable(environment):
            return _forked(arguments, environment, stdin)
        done = subprocess.run(
            [PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def call(self, *arguments: str, stdin: str = "", **variables: str) -> Ran:
        """The same as `run`, inside this process: quicker, but not beside a replica, whose threads read the same
        environment from C.
        """
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.variables | variables, clear=True),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = main.run(arguments)
        return Ran(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start through pipes, to look at while it runs."""
        return subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.variables | variables,
        )

    def type(
        self,
        *arguments: str,
        answers: Sequence[tuple[str, Answer]] = (),
        seconds: float = 30,
        watch: Callable[[str], None] = lambda _screen: None,
        columns: int = 100,
        out: Path | None = None,
    ) -> Ran:
        """Run on a terminal; for each (prompt, answer) wait for the prompt and type the answer, newline included.

        Args:
            watch: called with the whole screen each time it changes.
            out: where standard output goes, as with `> FILE` behind the command.
        """
        screen, keyboard = pty.openpty()
        with ExitStack() as closing:
            closing.callback(os.close, screen)
            with os.fdopen(keyboard, "wb") as shown:
                written = shown if out is None else closing.enter_context(out.open("wb"))
                environment = {**self.variables, "COLUMNS": str(columns), "TERM": "xterm"}
                descriptors = [shown.fileno(), written.fileno(), shown.fileno()]
                child = forking.fork(arguments, environment, descriptors)
            closing.callback(child.kill)
            seen = _converse(screen, list(answers), time.monotonic() + seconds, watch)
            return Ran(child.wait(10), seen, "")


def _forked(arguments: Sequence[str], environment: Mapping[str, str], stdin: str) -> Ran:
    with TemporaryFile() as into, TemporaryFile() as out, TemporaryFile() as err:
        into.write(stdin.encode())
        into.seek(0)
        code = forking.fork(arguments, environment, [file.fileno() for file in (into, out, err)]).wait(60)
        for file in (out, err):
            file.seek(0)
        return Ran(code, out.read().decode(), err.read().decode())


def _converse(screen: int, waiting: list[tuple[str, Answer]], end: float, watch: Callable[[str], None]) -> str:
    seen, from_here = "", 0
    while time.monotonic() < end:
        if not select.select([screen], [], [], 0.2)[0]:
            continue
        try:
            chunk = os.read(screen, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not chunk:
            break
        seen += chunk.decode(errors="replace")
        watch(seen)
        if waiting and waiting[0][0] in seen[from_here:]:
            from_here, answer = len(seen), waiting.pop(0)[1]
            if answer == CTRL_C:
                time.sleep(1)  # what was typed before must have begun
            os.write(screen, (answer if isinstance(answer, str) else answer()).encode())
    return seen
