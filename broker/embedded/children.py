"""Child processes that die with their parent, drop root where they must, and are stopped by process id."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import IO, Any


class StartFailed(Exception):
    """A server of the embedded stack could not be started. The text is one line for a person."""


class Startable(ABC):
    """What is started without waiting, and then awaited."""

    @abstractmethod
    def launch(self) -> None:
        """Start without waiting.

        Raises:
            StartFailed: it cannot be: a port is taken, it is not installed, or it cannot be initialised.
        """

    @abstractmethod
    def await_serving(self) -> None:
        """Wait until what was launched serves.

        Raises:
            StartFailed: it does not come up.
        """

    def start(self) -> None:
        """Start, and return once it serves.

        Raises:
            StartFailed: as `launch` and `await_serving`.
        """
        self.launch()
        self.await_serving()


class Server(Startable):
    """One server of the stack: a child process, its log, and whether it serves yet."""

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self, log: Path) -> None:
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def await_serving(self) -> None:
        """Wait until what was launched serves."""
        if self._child is None:
            raise StartFailed(f"{self.name} was not launched.")
        wait_until(self._healthy, self._child, seconds=30, name=self.name, log=self.log)

    def stop(self) -> None:
        """Stop it; its state stays."""
        if self._child is not None:
            stop(self._child, self.stop_signal)

    @abstractmethod
    def _healthy(self) -> bool:
        """Whether it serves now."""


def program(name: str, called: str) -> Path:
    """A program that a wheel of ours brings: beside this Python, or on the path.

    Raises:
        StartFailed: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    if not found:
        raise StartFailed(f"{called} is not installed. Install guestkey[embedded].")
    return Path(found)


def write_private(file: Path, content: str | bytes) -> None:
    """Write a file that nobody else can read, not even for an instant."""
    file.touch(mode=0o600)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def made_once(file: Path, make: Callable[[], Any]) -> Any:
    """What a JSON file holds that only we can read; on the first time, what `make` returns."""
    if not file.exists():
        write_private(file, json.dumps(make()))
    return json.loads(file.read_text())


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free, and for a minute lent to nobody who asks for any port.

    A connection that ends leaves it waiting (TIME_WAIT, RFC 9293 section 3.6.1), which hinders no server that binds it
    by its number with SO_REUSEADDR, as servers do.
    """
    with socket.socket() as probe, socket.socket() as visitor:
        # Else not even a server that sets the same could bind it while it waits.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        probe.listen(1)
        port: int = probe.getsockname()[1]
        visitor.connect(probe.getsockname())
        # The side that closes first is the one that waits.
        probe.accept()[0].close()
        return port


def require_free(port: int, purpose: str) -> None:
    """Refuse a port somebody already listens on.

    Raises:
        StartFailed: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartFailed(
                f"Port {port}, wanted for {purpose}, is taken. Stop the program that listens there."
            ) from error


def unprivileged() -> tuple[int, int] | None:
    """User and group id to run PostgreSQL as when we are root (it refuses root); None: as we are."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam("nobody")
    return account.pw_uid, account.pw_gid


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    stop_signal: signal.Signals = signal.SIGTERM,
    account: tuple[int, int] | None = None,
    environment: Mapping[str, str] | None = None,
    without: Set[str] = frozenset(),
) -> subprocess.Popen[bytes]:
    """Start a child that gets `stop_signal` when this process dies. Call from the main thread.

    The launcher is `broker.embedded.launch`, because the death signal must be set after the user id and checked
    against a parent that died in between.

    Args:
        environment: variables besides those of this process.
        without: names of variables of this process that the child does not get.
    """
    launcher = Path(__file__).with_name("launch.py")
    uid, gid = account or (-1, -1)
    prefix = [sys.executable, "-I", "-S", str(launcher), str(int(stop_signal)), str(os.getpid()), str(uid), str(gid)]
    with open_log(log) as output:
        return subprocess.Popen(
            [*prefix, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**{name: value for name, value in os.environ.items() if name not in without}, **(environment or {})},
            start_new_session=True,
        )


def open_log(file: Path) -> IO[bytes]:
    """Open a log to append to. Nobody else reads it: servers write names, addresses and statements there."""
    file.touch(mode=0o600)
    file.chmod(0o600)
    return file.open("ab")


def wait_until(
    ready: Callable[[], bool], child: subprocess.Popen[bytes], *, seconds: float, name: str, log: Path
) -> None:
    """Poll until ready.

    Raises:
        StartFailed: the child died, or the time is up.
    """

    def came_up() -> bool:
        if child.poll() is not None:
            raise StartFailed(f"{name} stopped at once (exit {child.returncode}): {last_line(log)} See {log}.")
        return ready()

    if not comes_true(came_up, seconds):
        raise StartFailed(f"{name} did not answer within {seconds:.0f} s. See {log}.")


def comes_true(what: Callable[[], bool], seconds: float) -> bool:
    """Ask until it is so; False once the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.03)
    return False


def stop(child: subprocess.Popen[bytes], stop_signal: signal.Signals = signal.SIGTERM, *, seconds: float = 15) -> None:
    """Stop a child by process id and wait; kill it if it does not go in time."""
    if child.poll() is not None:
        return
    child.send_signal(stop_signal)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(5)


def last_line(log: Path) -> str:
    """The last line of a log that says something, or nothing."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""
