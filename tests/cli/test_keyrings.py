"""A keyring that never answers, and what a crash left behind: no command waits for either, and there is a way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guestkey.cli import keyrings, tokens
from tests.cli.broken import answering, http
from tests.cli.terminal import Terminal

HANGING = """
import threading
from keyring.backend import KeyringBackend
class Ring(KeyringBackend):
    priority = 1
    def get_password(self, service, username): threading.Event().wait()
    set_password = delete_password = get_password
"""
COMMANDS = (
    ("whoami",),
    ("doctor",),
    ("status",),
    ("logout",),
    ("get", "trials", "--kind", "postgres"),
    ("dataset", "list"),
    ("run", "trials", "--", "true"),
)
SDK = "import guestkey\ntry: guestkey.Client()\nexcept guestkey.Error as error: print(error)"
ME = {"id": "pe_x", "name": "Ada", "info": {"version": "1"}, "ready": True, "missing": {}, "items": []}
# A machine that does much else may take this much longer than the keyring is waited for.
PATIENCE = 90


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A computer whose keyring hangs."""
    (tmp_path / "hanging_ring.py").write_text(HANGING)
    hanging = {"PYTHON_KEYRING_BACKEND": "hanging_ring.Ring", "PYTHONPATH": str(tmp_path)}
    return Terminal(tmp_path, "http://localhost:1", GUESTKEY_TIMEOUT="2", **hanging)


def kept_in_file(terminal: Terminal, url: str) -> Path:
    """A token in the file, as `guestkey login` keeps it."""
    file = terminal.home / ".local" / "share" / "guestkey" / "tokens.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({url: "gka_x"}))
    file.chmod(0o600)
    return file


def test_hanging_keyring_is_reported_and_the_file_is_used(terminal: Terminal) -> None:
    assert keyrings.SECONDS < 10
    with answering(http(200, ME)) as (url, _):
        started = [terminal.start(*command, GUESTKEY_URL=url) for command in COMMANDS]
        program = subprocess.Popen(
            [sys.executable, "-c", SDK],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**terminal.variables, "GUESTKEY_URL": url},
        )
        for command, child in (*zip(COMMANDS, started, strict=True), (("sdk",), program)):
            out, err = child.communicate(timeout=PATIENCE)
            said = out + err
            assert "keyring" in said and "Traceback" not in said, (command, said)
            if command[0] not in ("sdk", "status"):
                assert "GUESTKEY_TOKEN_STORE=file" in said, (command, said)
            assert child.returncode != 0 or command == ("sdk",), command


def test_token_file_is_used_without_waiting_for_the_keyring(terminal: Terminal) -> None:
    with answering(http(200, ME)) as (url, _):
        file = kept_in_file(terminal, url)
        waited = terminal.start("whoami", GUESTKEY_URL=url)
        at_once = terminal.run("whoami", GUESTKEY_URL=url, GUESTKEY_TOKEN_STORE="file")
        doctor = terminal.run("doctor", GUESTKEY_URL=url, GUESTKEY_TOKEN_STORE="file")
        out, err = waited.communicate(timeout=PATIENCE)
        wrong = terminal.run("whoami", GUESTKEY_URL=url, GUESTKEY_TOKEN_STORE="nowhere")
        ended = terminal.run("logout", GUESTKEY_URL=url, GUESTKEY_TOKEN_STORE="file")
    assert waited.returncode == 0 and "Ada" in out and "GUESTKEY_TOKEN_STORE=file" in err
    assert (at_once.code, "Ada" in at_once.out, at_once.err) == (0, True, "")
    assert "GUESTKEY_TOKEN_STORE says so" in doctor.out
    assert wrong.code == 2 and "neither" in wrong.err
    assert ended.code == 0 and not file.exists()


def test_leftovers_of_a_crash_do_not_block_signing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container every process may have the same id: a name made of it is there already."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GUESTKEY_TOKEN_STORE", "file")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    file = tokens.tokens_file()
    file.parent.mkdir(parents=True)
    for left in (f".tokens.json.{os.getpid()}", ".tokens.json.1"):
        (file.parent / left).write_text("half-writ")
        (file.parent / left).chmod(0o400)
    tokens.save("http://localhost:1", "gka_y")
    assert tokens.load("http://localhost:1") == "gka_y" and file.stat().st_mode & 0o777 == 0o600
