"""Where the token lies, and that nothing of it or of other secrets leaks out of the program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from keyring.core import load_keyring

from guestkey.cli import tokens
from guestkey.cli.faults import Fault

URL = "https://guestkey.example.com"
TOKEN = "gka_" + "t" * 43
_KEYRING = """
import json, pathlib
from keyring.backend import KeyringBackend
FILE = pathlib.Path({file!r})
class Memory(KeyringBackend):
    priority = 1
    def _all(self): return json.loads(FILE.read_text()) if FILE.exists() else {{}}
    def _keep(self, all): FILE.write_text(json.dumps(all))
    def get_password(self, service, username): return self._all().get(service + username)
    def set_password(self, service, username, password):
        self._keep({{**self._all(), service + username: password}})
    def delete_password(self, service, username):
        all = self._all(); del all[service + username]; self._keep(all)
"""
_SAVE_LOAD_FORGET = """
from guestkey.cli import tokens
print(tokens.save({url!r}, {token!r})); print(tokens.load({url!r})); print(tokens.tokens_file().exists())
tokens.forget({url!r}); print(tokens.load({url!r}))
"""


@pytest.fixture
def no_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("keyring.core._keyring_backend", load_keyring("keyring.backends.fail.Keyring"))
    monkeypatch.setattr(tokens, "user_data_path", lambda *_, **__: tmp_path / "data" / "guestkey")
    return tmp_path


def test_token_file_is_private_without_a_keyring(no_keyring: Path) -> None:
    where = tokens.save(URL, TOKEN)
    file = tokens.tokens_file()
    assert str(file) in where
    assert "no keyring" in where
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert oct(file.parent.stat().st_mode & 0o777) == "0o700"
    assert tokens.load(URL) == TOKEN
    tokens.forget(URL)
    assert tokens.load(URL) is None
    assert not file.exists()


def test_tokens_of_several_installations_do_not_mix(no_keyring: Path) -> None:
    tokens.save(URL, TOKEN)
    tokens.save("https://other.example", "gka_other")
    tokens.forget("https://other.example")
    assert tokens.load(URL) == TOKEN


def test_token_file_readable_by_others_is_refused(no_keyring: Path) -> None:
    tokens.save(URL, TOKEN)
    tokens.tokens_file().chmod(0o644)
    with pytest.raises(Fault, match="read by others") as refused:
        tokens.load(URL)
    assert "chmod 600" in refused.value.next_step


def test_damaged_token_file_says_what_to_do(no_keyring: Path) -> None:
    tokens.save(URL, TOKEN)
    tokens.tokens_file().write_text("{")
    with pytest.raises(Fault, match="damaged"):
        tokens.load(URL)


def test_keyring_stores_the_token_and_no_file_remains(tmp_path: Path) -> None:
    (tmp_path / "memory_keyring.py").write_text(_KEYRING.format(file=str(tmp_path / "ring.json")))
    variables = {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(tmp_path),
        "PYTHON_KEYRING_BACKEND": "memory_keyring.Memory",
    }
    script = _SAVE_LOAD_FORGET.format(url=URL, token=TOKEN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables, check=True)
    assert done.stdout.splitlines() == ["the system keyring", TOKEN, "False", "None"]
    assert json.loads((tmp_path / "ring.json").read_text()) == {}


def test_traceback_shows_no_local_variables() -> None:
    script = """
from guestkey.cli.command_tree import app
@app.command("crash")
def crash() -> None:
    password = "canary-" + "of-a-secret"
    raise RuntimeError("on purpose")
app(["crash"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "on purpose" in done.stderr
    assert "canary-of-a-secret" not in done.stderr + done.stdout
