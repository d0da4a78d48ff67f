"""A process that makes broker processes by forking, so that each starts in a fraction of a second.

`python -m tests.faults.launcher` reads orders from standard input, one JSON object a line, and answers each with one.
What it starts is the product's own `serve` and `worker`, with places to die at (`tests.faults.steps`), a clock of its
own, or a log of its own. It ends what it started when its input ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import time_machine

# Loaded once, before any fork.
import broker.web.app  # noqa: F401
from broker.operator.serve import serve, work
from tests.faults import steps

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Carry out orders until there are no more."""
    started: set[int] = set()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "start":
            answer: dict[str, Any] = {"pid": _start(order)}
            started.add(answer["pid"])
        else:
            answer = {"status": _wait(order["pid"], order["seconds"])}
            if answer["status"] is not None:
                started.discard(order["pid"])
        print(json.dumps(answer), flush=True)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _start(order: Mapping[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            _become(order)
            status = 0
    finally:
        os._exit(status)


def _become(order: Mapping[str, Any]) -> None:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for theirs, ours in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(theirs, ours)
    os.environ.update(order["environment"])
    if order.get("clock"):
        _step_the_clock(order["clock"])
    steps.install(order)
    if order["role"] == "serve":
        serve("127.0.0.1", order["port"], 1, None)
    else:
        work("127.0.0.1", None)


def _step_the_clock(seconds: float) -> None:
    # As an administrator's mistake does it: to a process that runs.
    def step(*_: object) -> None:
        time_machine.travel(time.time() + seconds, tick=True).start()

    signal.signal(signal.SIGUSR1, step)


def _wait(pid: int, seconds: float) -> int | None:
    """How it ended: its exit status, or minus the signal's number; None if it lives on."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


if __name__ == "__main__":
    main()
