"""Everything on one machine: a supervisor that keeps the three servers, web and worker running, detached.

`start` launches the supervisor and waits until the portal answers; `stop` ends it by process id. The supervisor's
children die with it. What it has to say it writes to `status.json` in the state folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import requests

from broker.embedded import children
from broker.embedded.children import StartFailed
from broker.embedded.stack import Ports, Stack

_START_SECONDS = 150
_LONGEST_BACKOFF = 30.0
_ACCOUNTS = "accounts.json"
_OWNER = "GUESTKEY_OWNER_DATABASE_URL"
# By process, the beginnings of the variables it must not have.
_KEPT_FROM = {"web": (_OWNER, "GUESTKEY_BAO_ENDER", "GUESTKEY_BAO_SETUP"), "worker": (_OWNER, "GUESTKEY_BAO_ISSUER")}


def main(description: str) -> int:
    """Parse the command line and do it; 0 if done, 1 with one line on stderr if not."""
    parser = argparse.ArgumentParser(prog="python -m broker.embedded", description=description)
    parser.add_argument("command", choices=("up", "down", "status", "passwords", "supervise"))
    parser.add_argument("--state", type=Path, default=Path(".state"), help="state folder (default: .state)")
    parser.add_argument("--port", type=int, default=8200, help="the portal's port on first start (default: 8200)")
    given = parser.parse_args()
    state = given.state.resolve()
    try:
        if given.command in ("up", "supervise"):
            return (start if given.command == "up" else supervise)(state, given.port)
        return {"down": stop, "status": show, "passwords": passwords}[given.command](state)
    except StartFailed as error:
        print(f"guestkey: {error}", file=sys.stderr)
        return 1


def start(state: Path, port: int) -> int:
    """Start everything unless it runs, wait until the portal answers, print what a person needs to know."""
    state.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    if _running(state) is None:
        (state / "status.json").unlink(missing_ok=True)
        with children.open_log(state / "supervisor.log") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "broker.embedded", "supervise", "--state", str(state), "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _await_running(state, supervisor)
    status = _read_status(state)
    _print_summary(state, status, time.monotonic() - began)
    return 0


def stop(state: Path) -> int:
    """Stop everything; the state stays for the next start."""
    pid = _running(state)
    if pid is None:
        print("Nothing is running.")
        return 0
    os.kill(pid, signal.SIGTERM)
    if not children.comes_true(lambda: _running(state) is None, 30):
        raise StartFailed(f"The supervisor (process {pid}) did not stop within 30 s. See {state}/supervisor.log.")
    print("Stopped. `make up` finds everything again.")
    return 0


def passwords(state: Path) -> int:
    """Make new passwords for the example's people, and print them.

    Raises:
        StartFailed: nothing is running.
    """
    if _running(state) is None:
        raise StartFailed("Nothing is running. `make up` starts it.")
    from broker.embedded.example import new_passwords
    from broker.kinds.settings import load_settings

    settings = load_settings(state / "environment")
    _print_accounts([asdict(account) for account in new_passwords(Stack(state), settings)])
    return 0


def show(state: Path) -> int:
    """Print what runs; 1 if nothing does."""
    if _running(state) is None:
        print("Nothing is running. `make up` starts it.")
        return 1
    print(json.dumps(_read_status(state), indent=2))
    return 0


def supervise(state: Path, port: int) -> int:
    """Be the supervisor: start in order, watch, restart what dies, stop on SIGTERM."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    (state / "supervisor.pid").write_text(str(os.getpid()))
    supervisor = _Supervisor(state, port)
    try:
        supervisor.start()
        while not stopping.wait(0.2):
            supervisor.watch()
    except StartFailed as error:
        _write_status(state, {"state": "failed", "detail": str(error)})
        return 1
    finally:
        supervisor.stop()
        (state / "supervisor.pid").unlink(missing_ok=True)
    _write_status(state, {"state": "stopped"})
    return 0


class _Supervisor:
    def __init__(self, state: Path, port: int) -> None:
        kept = (state / "ports.json").exists()
        ports = None if kept else replace(Ports.free(), web=port)
        self._state = state
        self._stack = Stack(state, ports)
        self._first = not kept
        self._environment: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._restart_at: dict[str, float] = {}
        self._deaths: dict[str, int] = {}

    def start(self) -> None:
        """Bring everything up in order; the example is made on the first start only."""
        _write_status(self._state, {"state": "starting"})
        self._require_port()
        self._stack.start()
        self._environment = self._stack.environment()
        lines = "".join(f"{key}={value}\n" for key, value in self._environment.items())
        children.write_private(self._state / "environment", lines)
        self._prepare_records()
        for name in ("worker", "web"):
            self._launch(name)
        children.wait_until(self._ready, self._processes["web"], seconds=90, name="The portal", log=self._log("web"))
        _write_status(self._state, self._describe())

    def _require_port(self) -> None:
        """Whether the portal's port is free; where it was never served at, another may be chosen the next time."""
        try:
            children.require_free(self._stack.ports.web, "the portal")
        except StartFailed as taken:
            if not self._first:
                raise StartFailed(f"{taken} This installation keeps the port of its first start.") from taken
            (self._state / "ports.json").unlink()
            another = "or choose another: make up PORT=8300"
            raise StartFailed(f"{str(taken).removesuffix('.')}, {another}") from taken

    def watch(self) -> None:
        """Note children that died and start them again, each time after a longer pause."""
        for name, process in self._processes.items():
            if process.poll() is None:
                continue
            if name not in self._restart_at:
                self._deaths[name] = self._deaths.get(name, 0) + 1
                pause = min(_LONGEST_BACKOFF, 0.5 * 2 ** self._deaths[name])
                self._restart_at[name] = time.monotonic() + pause
                detail = f"{name} died (exit {process.returncode}): {children.last_line(self._log(name))}"
                _write_status(self._state, {**self._describe(), "state": "degraded", "detail": detail})
                print(f"{detail}; again in {pause:.1f} s", flush=True)
            elif time.monotonic() >= self._restart_at[name]:
                del self._restart_at[name]
                self._launch(name)
                _write_status(self._state, self._describe())
        stack = self._stack
        for server in (stack.bao, stack.postgres.records, stack.postgres.data, stack.store):
            if server.pid is None:
                raise StartFailed(f"{server.name} died. See its log in {self._state}; `make up` starts it again.")

    def stop(self) -> None:
        """Stop what was started, the servers last."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            children.stop(process)
        self._stack.stop()

    def _prepare_records(self) -> None:
        from broker.base.errors import Invalid
        from broker.embedded.example import seed
        from broker.kinds.settings import load_settings
        from broker.migrations import upgrade

        try:
            upgrade(self._stack.postgres.url("owner", "guestkey"))
        except Invalid as refused:
            raise StartFailed(f"{refused.detail} {refused.advice}") from refused
        seeded = self._state / "seeded"
        if not seeded.exists():
            accounts = seed(
                self._stack,
                load_settings(self._state / "environment"),
                f"{self._stack.public_url}/sign-in/callback",
            )
            # Handed to whoever waits for the start, who shows it once and removes it.
            children.write_private(self._state / _ACCOUNTS, json.dumps([asdict(account) for account in accounts]))
            seeded.touch()

    def _launch(self, name: str) -> None:
        arguments = {
            "web": ["serve", "--host", "127.0.0.1", "--port", str(self._stack.ports.web)],
            "worker": ["worker"],
        }[name]
        command: list[str | Path] = [Path(sys.executable).with_name("guestkey"), *arguments]
        environment, without = for_process(name, self._environment)
        self._processes[name] = children.start(command, log=self._log(name), environment=environment, without=without)

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self._stack.public_url}/readyz", timeout=3).status_code == 200
        except requests.RequestException:
            return False

    def _describe(self) -> dict[str, Any]:
        pids = {name: process.pid for name, process in self._processes.items()}
        servers = self._stack.postgres
        pids |= {"openbao": self._stack.bao.pid or 0, "seaweedfs": self._stack.store.pid or 0}
        pids |= {"postgresql": servers.data.pid or 0, "postgresql-records": servers.records.pid or 0}
        return {"state": "running", "url": self._stack.public_url, "processes": pids}

    def _log(self, name: str) -> Path:
        return self._state / f"{name}.log"


def for_process(name: str, variables: Mapping[str, str]) -> tuple[dict[str, str], frozenset[str]]:
    """The variables web or worker needs, and those kept from it: of other identities, and the records' owner."""
    kept_from = _KEPT_FROM[name]
    without = frozenset(variable for variable in variables if variable.startswith(kept_from))
    return {variable: value for variable, value in variables.items() if variable not in without}, without


def _await_running(state: Path, supervisor: subprocess.Popen[bytes]) -> None:
    def runs() -> bool:
        status, log = _read_status(state), state / "supervisor.log"
        if status.get("state") == "failed":
            raise StartFailed(str(status.get("detail")))
        if status.get("state") != "running" and supervisor.poll() is not None:
            raise StartFailed(f"The supervisor stopped (exit {supervisor.returncode}): {children.last_line(log)}")
        return status.get("state") == "running"

    if not children.comes_true(runs, _START_SECONDS):
        raise StartFailed(f"Nothing answered within {_START_SECONDS} s. See the logs in {state}.")


def _print_summary(state: Path, status: Mapping[str, Any], seconds: float) -> None:
    print(f"Guestkey answers at {status.get('url')}  (after {seconds:.1f} s)\n")
    fresh = state / _ACCOUNTS
    if fresh.exists():
        _print_accounts(json.loads(fresh.read_text()))
        fresh.unlink()
    else:
        print("The example's passwords were shown at the first start. To replace them: `make passwords`.")
    print("Notices are in the portal under /notices; mail is sent once GUESTKEY_SMTP_* is set (docs/notices.md).")
    print(f"\nState and logs: {state}")
    own = "" if state == Path(".state").absolute() or str(state) == ".state" else f" STATE={state}"
    print(f"Stop: make down{own}      What runs: make status{own}      The whole story, unattended: make demo")


def _print_accounts(accounts: Sequence[Mapping[str, Any]]) -> None:
    print("Sign in as one of the example's people. Passwords and links are stored nowhere and shown only once; a link")
    print("enrols that person's first second factor, once, within three days.\n")
    for account in accounts:
        print(f"  {account['username']:<6} {account['password']}  {account['what']}")
        if account["enrol"]:
            print(f"         second factor: {account['enrol']}")


def _running(state: Path) -> int | None:
    """The supervisor's process id if it lives and is ours."""
    try:
        pid = int((state / "supervisor.pid").read_text())
        os.kill(pid, 0)
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and b"broker.embedded" not in command.read_bytes():
            return None
    except (OSError, ValueError):
        return None
    return pid


def _read_status(state: Path) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((state / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return status


def _write_status(state: Path, status: Mapping[str, Any]) -> None:
    """Replace the status in one step, so that nobody reads half of it."""
    fresh = state / "status.json.new"
    fresh.write_text(json.dumps(status))
    fresh.replace(state / "status.json")
