"""The `guestkey` program without its start: forked off a process that has imported it already.

Most of what a short command costs is to import it, and the tests run several hundred. Each run is still a process of
its own, with its own environment, descriptors, signals and exit code. What the interpreter reads when it starts, such
as PYTHONPATH, cannot be given: see `startable`.

    python -m tests.support.forking ADDRESS     answers at that Unix socket until its standard input ends
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, cast
from unittest.mock import patch

import guestkey.cli
import guestkey.cli.main

_AT_START = ("PYTHON", "LC_", "LANG", "LD_")
_HARMLESS = frozenset({"PYTHON_KEYRING_BACKEND"})
_LANGUAGE = "C.UTF-8"
_LATER = ("rich.console", "rich.progress", "rich.table", "keyring.backends.fail")
# A command that finds nobody imports what every command does.
_FOR_NOTHING = ("dataset", "list", "--url", "http://127.0.0.1:1")


def startable(variables: Mapping[str, str]) -> bool:
    """Whether a program with these variables can be forked: none of them is for the interpreter's own start."""
    asked = {name: text for name, text in variables.items() if name.startswith(_AT_START) and name not in _HARMLESS}
    return asked.items() <= {"LANG": _LANGUAGE}.items()


class Forked:
    """A program that was forked."""

    def __init__(self, connection: socket.socket) -> None:
        self._answers = connection.makefile("r")
        self._connection = connection
        self.pid = int(self._answers.readline())
        self._code: int | None = None

    def wait(self, seconds: float) -> int:
        """Its exit code, as `subprocess` tells it; it is killed after `seconds`.

        Raises:
            subprocess.TimeoutExpired: it was killed.
        """
        if self._code is None:
            late = not select.select([self._connection], [], [], seconds)[0]
            if late:
                os.kill(self.pid, signal.SIGKILL)
            self._code = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
            if late:
                raise subprocess.TimeoutExpired("guestkey", seconds)
        return self._code

    def kill(self) -> None:
        """End it, unless it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)


def fork(arguments: Sequence[str], variables: Mapping[str, str], descriptors: Sequence[int]) -> Forked:
    """Run `guestkey` with these three standard descriptors; a terminal among them becomes its own."""
    wish = {"arguments": list(arguments), "variables": dict(variables), "folder": str(Path.cwd())}
    with TemporaryFile("w+") as file:
        json.dump(wish, file)
        file.flush()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(_address())
        socket.send_fds(connection, [b"?"], [*descriptors, file.fileno()])
    return Forked(connection)


@lru_cache(maxsize=1)
def _address() -> str:
    folder = TemporaryDirectory(prefix="guestkey-test-")
    address = f"{folder.name}/socket"
    variables = {**os.environ, "LANG": _LANGUAGE}
    parent = subprocess.Popen(
        [sys.executable, "-m", __name__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables
    )

    def stop() -> None:
        cast("IO[bytes]", parent.stdin).close()
        parent.wait()
        cast("IO[bytes]", parent.stdout).close()
        folder.cleanup()

    atexit.register(stop)
    assert cast("IO[bytes]", parent.stdout).readline() == b"ready\n"
    return address


def _serve(address: str) -> dict[str, Any] | None:
    """Fork for whoever asks; returns what is wished for in each fork, and None in the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)
        while True:
            asked, _, _ = select.select([listening, sys.stdin], [], [])
            if listening not in asked:
                return None
            connection, _ = listening.accept()
            with connection:
                if os.fork() == 0:
                    listening.close()
                    return _become(connection)


def _become(connection: socket.socket) -> dict[str, Any]:
    """Run the program in a process of its own, of which this one tells pid and exit code; returns in that process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 4)
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(f"{code}\n".encode())
        os._exit(0)
    connection.close()
    with os.fdopen(descriptors.pop(), "r") as file:
        file.seek(0)
        wish: dict[str, Any] = json.load(file)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return wish


def _as_if_started(wish: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(wish["variables"])
    time.tzset()
    os.chdir(wish["folder"])
    sys.argv = ["guestkey", *wish["arguments"]]
    if os.isatty(0):
        # So that Ctrl-C typed there reaches it as it would a person's.
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    options: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdin = os.fdopen(0, "r", errors="surrogateescape", **options)
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, errors="surrogateescape", **options)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", **options)


def _import_all() -> None:
    for module in walk_packages(guestkey.cli.__path__, "guestkey.cli."):
        import_module(module.name)
    for name in _LATER:
        import_module(name)
    with patch.dict(os.environ, GUESTKEY_TOKEN="gka_nobody"), redirect_stderr(io.StringIO()):
        guestkey.cli.main.run(_FOR_NOTHING)
    # What is never collected is never copied either.
    gc.freeze()


def _main() -> int:
    _import_all()
    wish = _serve(sys.argv[1])
    if wish is None:
        return 0
    _as_if_started(wish)
    guestkey.cli.main.main()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
