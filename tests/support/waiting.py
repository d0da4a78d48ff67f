"""Waiting for a server that a test has started as a process of its own, and for conditions."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx

# Beside other tests on a slow machine a server takes a minute to start; only one that never does is waited for so long.
SECONDS = 90.0


def answered(url: str, child: subprocess.Popen[Any], **options: Any) -> httpx.Response:
    """What it says when it says 200 for the first time; `options` are httpx's."""
    end = time.monotonic() + SECONDS
    while True:
        assert time.monotonic() < end and child.poll() is None, f"{url} does not answer"
        try:
            answer = httpx.get(url, timeout=20, trust_env=False, **options)
        except httpx.TransportError:
            pass
        else:
            if answer.status_code == 200:
                return answer
        time.sleep(0.1)


def until(condition: Callable[[], object], *, seconds: float = SECONDS, what: str = "it") -> None:
    """Wait until a condition holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)
