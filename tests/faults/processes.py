"""Broker processes as tests see them: started, spoken to, killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

from broker.embedded.children import free_port
from tests.support.waiting import SECONDS
from tests.support.world import Signed

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Process:
    """One broker process. `leak` is the file to which it copies what it makes."""

    launcher: Launcher
    pid: int
    url: str
    log: Path
    leak: Path

    def client(self, signed: Signed, *, timeout: float = 20) -> httpx.Client:
        """A client of its API."""
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=signed.headers, timeout=timeout, trust_env=False)

    def leaked(self) -> dict[str, str] | None:
        """What it made before it died, if anything."""
        return json.loads(self.leak.read_text()) if self.leak.exists() else None

    def ended(self, seconds: float = 10) -> int | None:
        """How it ended: exit status or minus the signal; None if it still lives after so many seconds."""
        return self.launcher.ended(self.pid, seconds)

    def killed(self, seconds: float = 20) -> None:
        """Expect it to have been killed by SIGKILL; one that was not must not go on behind other tests."""
        status = self.ended(seconds)
        if status is None:
            self.signal(signal.SIGKILL)
            self.ended(5)
        assert status == -signal.SIGKILL, f"{status}: {self.log.read_text()[-2000:]}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def __enter__(self) -> Process:
        """Use it for a block; it is asked to leave afterwards, and killed where the block failed."""
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        """See `__enter__`."""
        if failed is None:
            self.stop()
        elif self.ended(0) is None:
            self.signal(signal.SIGKILL)
            self.ended(5)

    def stop(self) -> None:
        """Ask it to leave, and wait."""
        self.signal(signal.SIGTERM)
        # The web server passes the signal on to itself once all is finished.
        assert self.ended(20) in (0, -signal.SIGTERM), self.log.read_text()[-2000:]


class Launcher:
    """See `tests.faults.launcher`."""

    def __init__(self, folder: Path, environment: Callable[[], Mapping[str, str]]) -> None:
        self._folder = folder
        self._environment = environment
        self._count = 0
        self._lock = Lock()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launcher"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("GUESTKEY_")},
        )
        self._ready = False

    def serve(self, *, environment: Mapping[str, str] | None = None, **order: Any) -> Process:
        """A replica, once it accepts connections."""
        port = free_port()
        url = f"http://localhost:{port}"
        own = {"GUESTKEY_PUBLIC_URL": url, **(environment or {})}
        made = self._start({"role": "serve", "port": port, **order}, own, url)
        end = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return made
            except OSError:
                assert time.monotonic() < end, made.log.read_text()[-2000:]
                time.sleep(0.02)

    def work(self, *, environment: Mapping[str, str] | None = None, **order: Any) -> Process:
        """A worker; it may take a moment to begin."""
        return self._start({"role": "worker", **order}, environment or {}, "")

    def ended(self, pid: int, seconds: float) -> int | None:
        """See `Process.ended`."""
        status: int | None = self._ask({"do": "wait", "pid": pid, "seconds": seconds})["status"]
        return status

    def close(self) -> None:
        """End whatever it started."""
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        self._child.wait(20)
        self._child.stdout.close()

    def _start(self, order: Mapping[str, Any], environment: Mapping[str, str], url: str) -> Process:
        with self._lock:
            self._count += 1
            name = self._folder / f"broker-{self._count}"
        log, leak = name.with_suffix(".log"), name.with_suffix(".leak")
        whole = {"do": "start", "log": str(log), "leak": str(leak), **order}
        whole["environment"] = {**self._environment(), **environment}
        return Process(self, self._ask(whole)["pid"], url, Path(whole["log"]), leak)

    def _ask(self, order: Mapping[str, Any]) -> Any:
        with self._lock:
            assert self._child.stdin and self._child.stdout
            if not self._ready:
                self._ready = json.loads(self._child.stdout.readline())["ready"]
            self._child.stdin.write(json.dumps(order) + "\n")
            self._child.stdin.flush()
            return json.loads(self._child.stdout.readline())
