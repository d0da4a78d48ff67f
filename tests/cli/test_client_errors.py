"""Whatever is wrong on this side, in arguments, environment or files: one clear error and never a traceback."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from guestkey.cli import network
from tests.cli.broken import answering, http
from tests.cli.terminal import PROGRAM, Ran, Terminal

CANARY = "gka_canary_of_a_token"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, GUESTKEY_TOKEN=CANARY, GUESTKEY_TIMEOUT="1", GUESTKEY_PSQL="/bin/true")


def clean(ran: Ran, code: int) -> None:
    """It ended as it should, said why in words, and showed nothing it should not."""
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("Error: ") and "\nNext: " in ran.err, ran.err
    assert "Traceback" not in ran.err
    assert "canary" not in ran.err


@pytest.mark.parametrize(
    "url",
    [
        "https://[",
        "https://host:99999",
        "https://host:x",
        "https://☃.example",
        "https://.example",
        "https://a..b",
        "\udcff",
    ],
)
def test_invalid_address_exits_2(terminal: Terminal, url: str) -> None:
    clean(terminal.call("whoami", "--url", url), 2)
    clean(terminal.call("whoami", GUESTKEY_URL=url), 2)
    clean(terminal.call("login", url), 2)
    found = terminal.call("doctor", "--url", url)
    assert (found.code, "Traceback" in found.err) == (2, False), found


@pytest.mark.parametrize("kept", ['{"url": 5}', '{"url": ["a"]}', '["a"]', "[", "\x00"])
def test_invalid_stored_address_is_reported(terminal: Terminal, kept: str) -> None:
    file = terminal.home / ".config" / "guestkey" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(kept)
    ran = terminal.call("whoami")
    clean(ran, 1)
    assert str(file) in ran.err


@pytest.mark.parametrize("token", ["gka_canaryü", "gka_canary\nx", "gka_canary x", "gka_canary\x7f"])
def test_invalid_token_is_neither_sent_nor_shown(terminal: Terminal, token: str) -> None:
    with answering(http(200, {})) as (url, heard):
        clean(terminal.call("whoami", "--url", url, GUESTKEY_TOKEN=token), 2)
        keep(terminal, {url: token})
        clean(terminal.call("whoami", "--url", url, GUESTKEY_TOKEN=""), 4)
        doctored = terminal.call("doctor", "--url", url, GUESTKEY_TOKEN="")
    assert "canary" not in doctored.out + doctored.err
    assert not any(b"canary" in request for request in heard)


def keep(terminal: Terminal, tokens: dict[str, Any]) -> Path:
    """Write the file of tokens as `login` would."""
    file = terminal.home / ".local" / "share" / "guestkey" / "tokens.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tokens))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    "words",
    [
        ("dataset", "show", "\udcff"),
        ("request", "new", "x", "--role", "r", "--purpose", "\udcff"),
        ("dataset", "new", "x", "--title", "t", "--label", "\udcff"),
        ("lease", "list", "--person", "\udcff"),
        ("dataset", "show", "x" * 70_000),
    ],
)
def test_unsendable_input_exits_2(terminal: Terminal, words: tuple[str, ...]) -> None:
    clean(terminal.call(*words, "--url", "http://localhost:1"), 2)


@pytest.mark.parametrize("proxy", ["socks5://localhost:1", "ftp://x:canary@y"])
def test_unusable_proxy_exits_2(terminal: Terminal, proxy: str) -> None:
    ran = terminal.call("whoami", "--url", "https://guestkey.example", HTTPS_PROXY=proxy)
    clean(ran, 2)
    assert "NO_PROXY=guestkey.example" in ran.err


def test_unreadable_certificate_file_is_named(terminal: Terminal) -> None:
    ran = terminal.call("whoami", "--url", "https://localhost:1", SSL_CERT_FILE="/no/such.pem")
    clean(ran, 2)
    assert "/no/such.pem" in ran.err and "SSL_CERT_FILE" in ran.err


def test_bundled_certificates_are_used_without_system_certificates(terminal: Terminal) -> None:
    """As a small container: its folder is there, and empty."""
    (terminal.home / "certs").mkdir()
    bare = ssl.get_default_verify_paths()._replace(cafile="", capath=str(terminal.home / "certs"))
    with patch("ssl.get_default_verify_paths", return_value=bare):
        assert network.trust("https://guestkey.example").cert_store_stats()["x509_ca"] > 50


RAISING = """
from keyring.backend import KeyringBackend
class Ring(KeyringBackend):
    priority = 1
    def get_password(self, service, username): raise RuntimeError("canary")
    set_password = delete_password = get_password
"""


@pytest.mark.parametrize("backend", ["nonsense.Foo", "raising_ring.Ring"])
def test_failing_keyring_is_treated_as_missing(terminal: Terminal, backend: str) -> None:
    (terminal.home / "raising_ring.py").write_text(RAISING)
    broken = {"PYTHON_KEYRING_BACKEND": backend, "PYTHONPATH": str(terminal.home), "GUESTKEY_TOKEN": ""}
    clean(terminal.run("whoami", "--url", "http://localhost:1", **broken), 4)
    asked = {"_GUESTKEY_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": "guestkey connect "}
    tab = terminal.run(GUESTKEY_URL="http://localhost:1", _TYPER_COMPLETE_FISH_ACTION="get-args", **broken, **asked)
    assert (tab.code, tab.out.strip(), tab.err) == (0, "", "")


@pytest.mark.parametrize(
    ("first", "rest", "code"), [("whoami", [], 1), ("run", ["x", "--", "true"], 125), ("connect", ["x"], 125)]
)
@pytest.mark.parametrize("place", ["guestkey.cli.tokens.load", "guestkey.cli.command.Cli.__init__"])
def test_internal_error_is_one_line(terminal: Terminal, first: str, rest: list[str], code: int, place: str) -> None:
    with patch(place, side_effect=ValueError("canary")):
        ran = terminal.call(first, *rest, GUESTKEY_URL="http://localhost:1")
        as_json = terminal.call(first, "--json", *rest, GUESTKEY_URL="http://localhost:1")
        shown = terminal.call(first, *rest, GUESTKEY_URL="http://localhost:1", GUESTKEY_DEBUG="1")
    clean(ran, code)
    assert ran.err.startswith("Error: Internal error in guestkey.\n  ValueError\n")
    assert (as_json.code, json.loads(as_json.err)["error"]["detail"]) == (code, "ValueError")
    assert "Traceback" in shown.err and "canary" in shown.err


def test_output_encoding_without_a_character_is_no_error(terminal: Terminal) -> None:
    item = {"slug": "x", "title": "✓ Łódź", "status": "active"}
    with answering(http(200, {"items": [item], "next_cursor": None})) as (url, _):
        ran = terminal.run("dataset", "list", "--url", url, PYTHONIOENCODING="ascii")
    assert (ran.code, ran.out.split("\t")[:2], ran.err) == (0, ["x", "\\u2713 \\u0141\\xf3d\\u017a"], "")


INTERRUPTING = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
"""


def test_ctrl_c_during_start_exits_130(terminal: Terminal) -> None:
    (terminal.home / "sitecustomize.py").write_text(INTERRUPTING)
    ran = terminal.run("help", PYTHONPATH=str(terminal.home))
    assert (ran.code, ran.out, ran.err) == (130, "", "")


@pytest.mark.parametrize("browser", ['foo "bar %s', "/no/such/browser %s", "{home}/browser", "{home}/browser %s"])
def test_browser_output_and_delay_do_not_affect_the_command(terminal: Terminal, browser: str) -> None:
    program = terminal.home / "browser"
    program.write_text("#!/bin/sh\necho spoiled\necho spoiled >&2\nexec sleep 8\n")
    program.chmod(0o755)
    script = "from guestkey.cli.browsers import try_open; try_open('http://localhost:1/'); print('on')"
    environment = terminal.variables | {"BROWSER": browser.format(home=terminal.home)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=7, check=True
    )
    assert (done.stdout, done.stderr) == ("on\n", "")


def test_hanging_desktop_does_not_block_the_command(terminal: Terminal) -> None:
    """Which browser somebody likes is asked of another program, where there is a screen."""
    asked, opened = terminal.home / "asked", terminal.home / "opened"
    for name, script in (("xdg-settings", f"touch {asked}; exec sleep 8"), ("firefox", f"touch {opened}")):
        (terminal.home / name).write_text(f"#!/bin/sh\n{script}\n")
        (terminal.home / name).chmod(0o755)
    script = "from guestkey.cli.browsers import try_open; try_open('http://localhost:1/'); print('on')"
    path = f"{terminal.home}:{terminal.variables['PATH']}"
    environment = terminal.variables | {"DISPLAY": ":9", "PATH": path}
    environment.pop("BROWSER", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=7, check=True
    )
    assert (done.stdout, done.stderr) == ("on\n", "")
    until = time.monotonic() + 60
    while not opened.exists():
        assert time.monotonic() < until, f"nothing was opened; the desktop was asked: {asked.exists()}"
        time.sleep(0.1)
    assert asked.exists(), "the trap is real"


def test_broken_pipe_is_silent(terminal: Terminal) -> None:
    items = [{"id": f"l{number}", "state": "active"} for number in range(5000)]
    with answering(http(200, {"items": items, "next_cursor": None})) as (url, _):
        words = f"{PROGRAM} lease list --limit 5000 --url {url} | head -n 1"
        done = subprocess.run(["sh", "-c", words], env=terminal.variables, capture_output=True, text=True, check=True)
    assert (done.stdout.split("\t")[0], done.stderr) == ("l0", "")


def test_missing_guestkey_psql_exits_125(terminal: Terminal) -> None:
    ran = terminal.call(
        "connect", "x", "--kind", "postgres", "--url", "http://localhost:1", GUESTKEY_PSQL="/no/such/psql"
    )
    clean(ran, 125)
    assert "GUESTKEY_PSQL does not name a program: /no/such/psql." in ran.err
