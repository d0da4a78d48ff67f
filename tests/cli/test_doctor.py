"""`guestkey doctor` with real faults: it names each, says how to mend it, and ends in time."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from broker.models import ApiToken
from tests.cli import broken
from tests.cli.conftest import TerminalOf
from tests.support.tls_servers import WRONG, leaf, speaking_tls
from tests.support.world import World

MOST_SECONDS = 25


def findings(out: str) -> dict[str, tuple[str, str, str]]:
    """Each check's state, what was said, how to mend it."""
    items = json.loads(out)["data"]["items"]
    return {item["check"]: (item["state"], item["said"], item["mend"]) for item in items}


def test_doctor_without_findings(world: World, terminal_of: TerminalOf) -> None:
    signed, _, _ = world.guest()
    terminal = terminal_of(signed)
    ran = terminal.run("doctor", "--json")
    found = findings(ran.out)
    assert ran.code == 0, ran.out
    assert not [check for check, (state, _, _) in found.items() if state == "bad"]
    assert {"address", "token", "psql", "callback", "server", "clock", "ready", "signed in"} <= found.keys()
    assert "Ada Guest" in found["signed in"][1]
    shown = terminal.run("doctor")
    assert "good\tready\tthe server decides, and its backends answer\t\n" in shown.out
    assert signed.token not in shown.out + shown.err
    seen = terminal.type("doctor").out
    assert "✓ ready: the server decides, and its backends answer\r\n" in seen
    assert re.search(r"✓ signed in: as Ada Guest, since [^\r]+ ago\)\r\n", seen), seen


def test_doctor_reports_a_missing_sign_in(terminal_of: TerminalOf, world: World) -> None:
    ran = terminal_of(None).run("doctor", "--json")
    assert ran.code == 4
    assert findings(ran.out)["token"][2] == "guestkey login"
    ended = world.guest()[0]
    terminal = terminal_of(ended)
    world.change(ApiToken, ended.caller.holder_id, ended_at=world.now())
    gone = terminal.run("doctor", "--json")
    assert gone.code == 4
    assert findings(gone.out)["signed in"][0] == "bad"


@pytest.mark.parametrize(
    ("url", "check", "code"),
    [
        ("ftp://example.org", "address", 2),
        ("http://example.org", "address", 2),
        ("https://no-such-host.invalid", "name", 8),
        ("http://localhost:1", "connection", 8),
    ],
)
def test_doctor_reports_an_unreachable_address(terminal_of: TerminalOf, url: str, check: str, code: int) -> None:
    ran = terminal_of(None).run("doctor", "--json", "--url", url, GUESTKEY_TOKEN="gka_x")
    assert ran.code == code, ran.out
    state, _, mend = findings(ran.out)[check]
    assert state == "bad" and mend


@pytest.mark.parametrize("wrong", WRONG)
def test_doctor_reports_an_untrusted_certificate(terminal_of: TerminalOf, tmp_path: Path, wrong: str) -> None:
    authority, said = trustme.CA(), WRONG[wrong]
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    with speaking_tls(leaf(authority, wrong)) as url:
        known = {"GUESTKEY_TOKEN": "gka_x", "SSL_CERT_FILE": str(trusted)}
        ran = terminal_of(None).run("doctor", "--json", "--url", url, **known)
        refused = terminal_of(None).run("whoami", "--url", url, **known)
    assert ran.code == 8, ran.out
    assert refused.code == 8 and said in refused.err, "every command says so, not only the doctor"
    state, text, mend = findings(ran.out)["certificate"]
    assert (state, said in text, bool(mend)) == ("bad", True, True), text


def test_doctor_warns_of_an_expiring_certificate(terminal_of: TerminalOf, tmp_path: Path) -> None:
    authority = trustme.CA()
    ending = authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=3))
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    with speaking_tls(ending) as url:
        ran = terminal_of(None).run("doctor", "--json", "--url", url, SSL_CERT_FILE=str(trusted), GUESTKEY_TOKEN="x")
    assert findings(ran.out)["certificate"][0] == "odd"


def test_doctor_reports_a_wrong_clock(terminal_of: TerminalOf) -> None:
    body = {"info": {"version": "1"}, "ready": True, "missing": {}}
    answer = broken.http(200, body, Date="Mon, 02 Mar 2026 10:00:00 GMT")
    with broken.answering(answer) as (url, _):
        ran = terminal_of(None).run("doctor", "--json", "--url", url, GUESTKEY_TOKEN="gka_x")
    assert findings(ran.out)["clock"][0] == "bad"
    assert "ahead of the server's" in findings(ran.out)["clock"][1]
    assert ran.code == 1


def test_doctor_reports_another_api_version_and_another_server(terminal_of: TerminalOf) -> None:
    for answer, code in ((broken.http(200, {"info": {"version": "7"}}), 1), (broken.http(200, b"hello"), 1)):
        with broken.answering(answer) as (url, _):
            ran = terminal_of(None).run("doctor", "--json", "--url", url, GUESTKEY_TOKEN="gka_x")
        assert (ran.code, findings(ran.out)["server"][0]) == (code, "bad"), ran.out


def test_doctor_names_a_missing_backend(terminal_of: TerminalOf) -> None:
    body = {"info": {"version": "1"}, "ready": False, "missing": {"openbao": "The key store is sealed."}}
    with broken.answering(broken.http(200, body)) as (url, _):
        ran = terminal_of(None).run("doctor", "--json", "--url", url, GUESTKEY_TOKEN="gka_x")
    assert ran.code == 8
    assert "openbao: The key store is sealed." in findings(ran.out)["ready"][1]


def test_doctor_reports_a_hanging_server_in_time(terminal_of: TerminalOf) -> None:
    began = time.monotonic()
    with broken.answering(b"", hold=True) as (url, _):
        ran = terminal_of(None).run("doctor", "--json", "--url", url, GUESTKEY_TOKEN="gka_x", GUESTKEY_TIMEOUT="2")
    assert ran.code == 8
    assert time.monotonic() - began < MOST_SECONDS


def test_doctor_reports_files_that_others_can_read(terminal_of: TerminalOf, world: World) -> None:
    terminal = terminal_of(None)
    file = terminal.home / ".local" / "share" / "guestkey" / "tokens.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"http://localhost:1": "gka_secret"}')
    file.chmod(0o644)
    ran = terminal.run("doctor", "--json", "--url", "http://localhost:1")
    state, _, mend = findings(ran.out)["token"]
    assert (state, mend.startswith("chmod 600")) == ("bad", True)
    assert "gka_secret" not in ran.out + ran.err
