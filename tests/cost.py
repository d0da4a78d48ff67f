"""Runs the demo and then the tests, and prints what both cost in CPU seconds: `python -m tests.cost ARGUMENTS`.

Seconds of CPU, of every process that either started, mean much the same on a machine that is busy with something else;
the ratio of the two means much the same on any machine. Arguments are pytest's, and so is the exit code.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

# At most so many times what the demo costs; see docs/testing.md.
MOST = 8.0
_SUBREAPER = 36
# What a process left behind is stopping: servers end a moment after those that started them.
_LEAVING_SECONDS = 20.0


@dataclass(frozen=True)
class Cost:
    """How a program ended, and the CPU seconds of it and of all it started."""

    code: int
    seconds: float
    said: bytes


def cost_of(command: Sequence[str], *, quiet: bool = False) -> Cost:
    """Run a program to its end and to that of all it started; what it says is kept if `quiet`, else printed."""
    # Those whose parents are gone become ours, so that their seconds are counted too.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    before = _reaped()
    with subprocess.Popen(command, stdout=subprocess.PIPE if quiet else None) as child:
        said, _ = child.communicate()
    end = time.monotonic() + _LEAVING_SECONDS
    while _any_left() and time.monotonic() < end:
        time.sleep(0.05)
    return Cost(child.returncode, _reaped() - before, said or b"")


def _reaped() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _any_left() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    """Run both; returns pytest's exit code, or the demo's if it failed."""
    demo = cost_of([sys.executable, "-m", "examples.demo"], quiet=True)
    if demo.code:
        sys.stderr.buffer.write(demo.said)
        return demo.code
    tests = cost_of([sys.executable, "-m", "pytest", *arguments])
    ratio = tests.seconds / demo.seconds
    print(
        f"CPU: {tests.seconds:.0f} s for the tests, {demo.seconds:.0f} s for `make demo`: {ratio:.1f} times"
        f" ({MOST:.0f} at most)"
    )
    return tests.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
