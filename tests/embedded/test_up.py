"""What `make up` runs: each process is given what it needs and no more, and nobody else reads what it writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from broker.embedded.children import free_port
from tests.support.waiting import until

OWNER = "GUESTKEY_OWNER_DATABASE_URL"


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """The state folder of a whole installation that runs."""
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        state = Path(folder)
        arguments = ["supervise", "--state", folder, "--port", str(free_port())]
        supervisor = subprocess.Popen([sys.executable, "-m", "broker.embedded", *arguments])
        try:
            until(lambda: supervisor.poll() is not None or _status(state).get("state") == "running", seconds=180)
            assert _status(state).get("state") == "running", _status(state)
            yield state
        finally:
            supervisor.send_signal(signal.SIGTERM)
            supervisor.wait(60)


def _status(state: Path) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((state / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return status


def _environment(state: Path, process: str) -> dict[str, str]:
    content = Path(f"/proc/{_status(state)['processes'][process]}/environ").read_text()
    return dict(pair.split("=", 1) for pair in content.split("\0") if "=" in pair)


@pytest.mark.parametrize(
    ("process", "needs", "kept_from_it"),
    [
        ("web", ("GUESTKEY_BAO_ISSUER__ROLE_ID",), ("GUESTKEY_BAO_ENDER", "GUESTKEY_BAO_SETUP")),
        ("worker", ("GUESTKEY_BAO_ENDER__ROLE_ID", "GUESTKEY_BAO_SETUP__ROLE_ID"), ("GUESTKEY_BAO_ISSUER",)),
    ],
)
def test_process_gets_its_own_identity_and_not_the_owner_of_the_records(
    state: Path, process: str, needs: tuple[str, ...], kept_from_it: tuple[str, ...]
) -> None:
    variables = _environment(state, process)
    assert "GUESTKEY_DATABASE_URL" in variables and all(name in variables for name in needs)
    assert not [name for name in variables if name.startswith((OWNER, *kept_from_it))]
    assert "guestkey_owner" not in str(variables)


@pytest.mark.parametrize("process", ["openbao", "postgresql", "postgresql-records", "seaweedfs"])
def test_servers_do_not_inherit_the_brokers_settings(state: Path, process: str) -> None:
    assert not [name for name in _environment(state, process) if name.startswith("GUESTKEY_DATABASE")]
    assert OWNER not in _environment(state, process)


def test_logs_are_readable_only_by_the_user(state: Path) -> None:
    logs = list(state.rglob("*.log"))
    assert {"web.log", "worker.log", "openbao.log", "audit.log", "seaweedfs.log"} <= {log.name for log in logs}
    assert [str(log) for log in logs if _others_read(log, state)] == []


def _others_read(log: Path, state: Path) -> bool:
    """Whether another user of this machine can open it: by its own mode, and through every folder on the way."""
    folders = [folder for folder in log.parents if folder.is_relative_to(state)]
    return bool(log.stat().st_mode & 0o077) and all(folder.stat().st_mode & 0o011 for folder in folders)
