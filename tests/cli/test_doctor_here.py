"""`guestkey doctor` where the fault is on this side: settings, proxies, and where the token lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import broken
from tests.cli.terminal import Terminal
from tests.cli.test_doctor import findings

WELL = {"info": {"version": "1"}, "ready": True, "missing": {}}


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, "http://localhost:1", GUESTKEY_TIMEOUT="2")


LOCKED = """
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
class Ring(KeyringBackend):
    priority = 1
    def get_password(self, service, username): raise KeyringLocked("canary")
    set_password = delete_password = get_password
"""


def test_doctor_reports_a_locked_keyring(terminal: Terminal) -> None:
    (terminal.home / "locked_ring.py").write_text(LOCKED)
    locked = {"PYTHON_KEYRING_BACKEND": "locked_ring.Ring", "PYTHONPATH": str(terminal.home)}
    with broken.answering(broken.http(200, WELL)) as (url, _):
        ran = terminal.run("doctor", "--json", "--url", url, **locked)
        refused = terminal.run("whoami", "--url", url, **locked)
        file = terminal.home / ".local" / "share" / "guestkey" / "tokens.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({url: "gka_x"}))
        file.chmod(0o600)
        kept = terminal.run("doctor", "--json", "--url", url, **locked)
    assert (ran.code, findings(ran.out)["token"][2]) == (1, "Unlock the keyring."), ran.out
    assert (refused.code, "The keyring is locked." in refused.err, "canary" in refused.err) == (1, True, False)
    assert findings(kept.out)["token"][:2] == ("odd", f"kept in {file}: the keyring is locked")


def test_token_file_of_another_installation_is_no_token_here(terminal: Terminal) -> None:
    file = terminal.home / ".local" / "share" / "guestkey" / "tokens.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"https://other.example": "gka_x"}')
    file.chmod(0o600)
    assert findings(terminal.call("doctor", "--json").out)["token"] == ("bad", "none is kept here", "guestkey login")


def test_doctor_reports_unusable_token_storage(terminal: Terminal) -> None:
    (terminal.home / ".local" / "share" / "guestkey" / "tokens.json").mkdir(parents=True)
    with broken.answering(broken.http(200, WELL)) as (url, _):
        for home in (str(terminal.home), "/dev/null"):
            ran = terminal.call("doctor", "--json", "--url", url, HOME=home)
            found = findings(ran.out)
            assert (ran.code, found["token"][0], found["ready"][0]) == (1, "bad", "good"), ran
            assert "tokens.json cannot be read." in found["token"][1]


def test_doctor_checks_the_proxy_if_one_is_set(terminal: Terminal) -> None:

    def doctored(proxy: str) -> tuple[int, dict[str, tuple[str, str, str]]]:
        url = "https://no-such-host.invalid"
        ran = terminal.call("doctor", "--json", "--url", url, HTTPS_PROXY=proxy, GUESTKEY_TOKEN="gka_x")
        assert "secret" not in ran.out + ran.err
        return ran.code, findings(ran.out)

    with broken.answering(broken.http(502, b"no way there", "text/plain")) as (url, heard):
        place = url.removeprefix("http://")
        code, found = doctored(f"http://name:secret@{place}")
        assert any(request.startswith(b"CONNECT no-such-host.invalid:443 ") for request in heard)
    assert (code, "name" in found, found["server"][0]) == (8, False, "bad"), "its name is the proxy's to look up"
    assert found["proxy"] == (
        "odd",
        f"requests go through {place.replace(':', ' port ')}",
        "If that fails: NO_PROXY=no-such-host.invalid",
    )
    code, found = doctored("http://127.0.0.1:1")
    assert (code, found["connection"][1].startswith("127.0.0.1 port 1")) == (8, True), found
    for useless, check in (("http://[", "proxy"), ("socks5://127.0.0.1:1", "settings")):
        code, found = doctored(useless)
        assert (code, found[check][0], "server" in found) == (2, "bad", False), found


@pytest.mark.parametrize(("name", "value"), [("GUESTKEY_TIMEOUT", "x"), ("SSL_CERT_FILE", "/no/such.pem")])
def test_doctor_reports_an_invalid_setting(terminal: Terminal, name: str, value: str) -> None:
    variables = {"GUESTKEY_TOKEN": "gka_x", name: value}
    ran = terminal.call("doctor", "--json", "--url", "https://localhost:1", **variables)
    found = findings(ran.out)
    assert (ran.code, found["settings"][0], name in "".join(found["settings"])) == (2, "bad", True), ran.out
    assert {"token", "callback"} <= found.keys(), "the rest is looked at all the same"


def test_doctor_lists_causes_before_consequences(terminal: Terminal) -> None:
    ran = terminal.call("doctor", "--json", "--url", "http://localhost:1")
    assert (ran.code, findings(ran.out)["token"][0]) == (8, "bad"), "no sign-in helps while nothing answers"
