"""A user of the example: a browser, an authenticator and a terminal. For the demo and the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp

from .browser import Browser

PROGRAM = Path(sys.executable).with_name("guestkey")
_STEP = 30


@dataclass(frozen=True, slots=True)
class Output:
    """What a program answered."""

    code: int
    out: str
    err: str
    seconds: float


class Authenticator:
    """An authenticator app that never shows a code twice."""

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret)
        self._last_step = 0
        self.last_code = ""

    def code(self) -> str:
        """The next code that has not been used; waits for it where it must. The broker takes one step ahead."""
        step = max(self._last_step + 1, int(time.time()) // _STEP)
        time.sleep(max(0.0, (step - 1) * _STEP + 0.2 - time.time()))
        self._last_step = step
        self.last_code = self._totp.at(step * _STEP)
        return self.last_code


class User:
    """One person of the example, with a home folder of their own."""

    def __init__(self, account: Mapping[str, str], portal: str, home: Path, **variables: str) -> None:
        self.browser = Browser(portal, account["username"], account["password"])
        self.enrol_link = account["enrol"]
        self.authenticator: Authenticator | None = None
        home.mkdir(parents=True, exist_ok=True)
        self._variables = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "GUESTKEY_URL": portal,
            # No keyring of whoever runs this is touched.
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "PSQL_HISTORY": os.devnull,
            **variables,
        }

    def enrol(self) -> Any:
        """Sign in through the one-time link and add an authenticator; returns what the API answered."""
        self.browser.open(f"{self.enrol_link}/sign-in")
        begun = self.browser.api("POST", "/factors/totp")
        self.authenticator = Authenticator(begun["secret"])
        return self.browser.api("POST", "/factors/totp/confirm", {"code": self.authenticator.code()})

    def sign_in_terminal(self) -> Output:
        """Run `guestkey login` and do in the browser what it asks for."""
        began = time.monotonic()
        login = self.start("login", "--no-browser", "--wait", "60")
        assert login.stderr is not None
        seen = ""
        while (found := re.search(r"\S+/oauth/authorize\?\S+", seen)) is None:
            line = login.stderr.readline()
            if not line:
                return Output(login.wait(), "", seen, time.monotonic() - began)
            seen += line
        allowed = self.browser.submit(self.browser.open(found[0]))
        self.browser.open(self.browser.link(allowed, "hand-over"))
        out, err = login.communicate(timeout=60)
        return Output(login.returncode, out, seen + err, time.monotonic() - began)

    def confirm(self) -> Output:
        """Prove the second factor at the terminal with a fresh code."""
        assert self.authenticator is not None
        return self.run("confirm", "--stdin", stdin=self.authenticator.code() + "\n")

    def run(self, *arguments: str, stdin: str = "") -> Output:
        """Run `guestkey` to the end."""
        began = time.monotonic()
        done = subprocess.run(
            [PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self._variables,
            timeout=120,
            check=False,
        )
        return Output(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `guestkey` and look at it while it runs."""
        return subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._variables,
        )
